"""The checkpoints of a run.

Each checkpoint is complete or absent. The last two are kept. A run resumes only from a checkpoint whose bytes were all
checked.

checkpoints/step-000200/{adapter/, state.pt, files.json}
"""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ValidationError

from unijudge.errors import DataError
from unijudge.storage.access_errors import unwritable
from unijudge.storage.files import (
    file_sha256,
    publish_json,
    publishing_folder,
    read_json,
    remove_folder,
)

logger = logging.getLogger(__name__)

KEPT = 2
ASIDE = "damaged-"
"""The prefix that a damaged checkpoint gets. The prefix excludes the folder from the checkpoints but keeps its files
for inspection."""


class CheckpointFiles(BaseModel):
    """The content of files.json: the digest of each file of a checkpoint."""

    sha256: dict[str, str]


class Checkpoints:
    """The folder of one run's checkpoints."""

    def __init__(self, folder: Path):
        self.folder = folder

    def save(self, step: int, state: dict[str, Any], save_weights: Callable[[Path], None]) -> None:
        """Publishes a checkpoint, and removes the older ones.

        Raises:
            DataError: The checkpoint could not be written. The earlier checkpoints are unchanged.
        """
        checkpoint = self.folder / f"step-{step:06d}"
        with publishing_folder(checkpoint) as draft:
            save_weights(draft / "adapter")
            # Given a path, torch hides why it cannot be written.
            with (draft / "state.pt").open("wb") as file:
                torch.save(state, file)
            publish_json(draft / "files.json", CheckpointFiles(sha256=_digests(draft)))
        for old in self._all()[:-KEPT]:
            remove_folder(old)

    def last_whole(self) -> Path | None:
        """Returns the last intact checkpoint, from which a run resumes, or None if there is no checkpoint yet.

        Damaged checkpoints are logged, and moved aside if an earlier checkpoint is intact.

        Raises:
            DataError: All checkpoints are damaged. A training never silently restarts from zero. Or a checkpoint cannot
                be read, which does not mean that the checkpoint is damaged.
        """
        damaged: list[Path] = []
        for checkpoint in reversed(self._all()):
            fault = _fault(checkpoint)
            if fault is None:
                for corrupt in damaged:
                    self._set_aside(corrupt)
                return checkpoint
            logger.warning(
                "%s: %s. The run resumes from the checkpoint before this one", checkpoint, fault
            )
            damaged.append(checkpoint)
        if damaged:
            names = ", ".join(corrupt.name for corrupt in damaged)
            raise DataError(
                f"{self.folder}: every checkpoint is damaged ({names}). Restore a checkpoint, or delete this folder to "
                "train again from the start"
            )
        return None

    def _set_aside(self, damaged: Path) -> None:
        path = self.folder / f"{ASIDE}{damaged.name}"
        shutil.rmtree(path, ignore_errors=True)  # an older damaged checkpoint of the same step
        try:
            damaged.replace(path)
        except OSError as error:
            raise unwritable(path, error) from error

    def _all(self) -> list[Path]:
        return sorted(
            self.folder.glob("step-*[0-9]"), key=lambda path: int(path.name.removeprefix("step-"))
        )


def load_state(checkpoint: Path) -> dict[str, Any]:
    """Returns the state that `save` received as `state`."""
    state: dict[str, Any] = torch.load(
        checkpoint / "state.pt", map_location="cpu", weights_only=True
    )
    return state


def _digests(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): file_sha256(path)
            for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "files.json"}  # fmt: skip


def _fault(checkpoint: Path) -> str | None:
    """Returns how a checkpoint is damaged, or None. Files that the training did not write are ignored."""
    try:
        written = read_json(checkpoint / "files.json", CheckpointFiles).sha256
        wrong = [
            name for name, digest in sorted(written.items()) if _digest(checkpoint / name) != digest
        ]
    except DataError as error:
        if isinstance(error.__cause__, (FileNotFoundError, ValidationError)):
            return f"damaged ({error})"
        raise
    return f"damaged ({', '.join(wrong)} changed or missing)" if wrong else None


def _digest(path: Path) -> str | None:
    """Returns the digest of a file, or None if the file does not exist."""
    try:
        return file_sha256(path)
    except DataError as error:
        if isinstance(error.__cause__, (FileNotFoundError, NotADirectoryError)):
            return None
        raise
