"""A run's checkpoints: each whole or absent, the last two kept, and every byte checked before one is gone on from.

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
from unijudge.storage.files import file_sha256, publish_json, publishing_folder, read_json, remove_folder

logger = logging.getLogger(__name__)

KEPT = 2
ASIDE = "damaged-"
"""Before the name of a damaged checkpoint: it is no checkpoint any more, and a person may look at it."""


class CheckpointFiles(BaseModel):
    """files.json: what the checkpoint was when it was written."""

    sha256: dict[str, str]


class Checkpoints:
    """The folder of one run's checkpoints."""

    def __init__(self, folder: Path):
        self.folder = folder

    def save(self, step: int, state: dict[str, Any], save_weights: Callable[[Path], None]) -> None:
        """Publishes a checkpoint, and removes the older ones.

        Raises:
            DataError: The disk refused; the checkpoints before are as they were.
        """
        checkpoint = self.folder / f"step-{step:06d}"
        with publishing_folder(checkpoint) as draft:
            save_weights(draft / "adapter")
            with (draft / "state.pt").open("wb") as file:  # torch hides why a disk refuses a path, not a file
                torch.save(state, file)
            publish_json(draft / "files.json", CheckpointFiles(sha256=_digests(draft)))
        for old in self._all()[:-KEPT]:
            remove_folder(old)

    def last_whole(self) -> Path | None:
        """Where a run goes on: the last checkpoint whose bytes are as they were written. None before the first.

        Damaged ones are named, and moved aside if a whole one stands before them.

        Raises:
            DataError: There are checkpoints, and all are damaged: nobody starts again from zero without knowing. Or one
                cannot be read, which says nothing about its bytes.
        """
        damaged: list[Path] = []
        for checkpoint in reversed(self._all()):
            fault = _fault(checkpoint)
            if fault is None:
                for one in damaged:
                    self._set_aside(one)
                return checkpoint
            logger.warning("%s: %s; going on from the checkpoint before it", checkpoint, fault)
            damaged.append(checkpoint)
        if damaged:
            raise DataError(
                f"{self.folder}: every checkpoint is damaged ({', '.join(one.name for one in damaged)}); restore one, "
                "or delete this folder to train again from the start"
            )
        return None

    def _set_aside(self, damaged: Path) -> None:
        place = self.folder / f"{ASIDE}{damaged.name}"
        shutil.rmtree(place, ignore_errors=True)  # of the same step, from an earlier time
        try:
            damaged.replace(place)
        except OSError as error:
            raise unwritable(place, error) from error

    def _all(self) -> list[Path]:
        return sorted(self.folder.glob("step-*[0-9]"), key=lambda path: int(path.name.removeprefix("step-")))


def load_state(checkpoint: Path) -> dict[str, Any]:
    """What `save` was given as `state`."""
    state: dict[str, Any] = torch.load(checkpoint / "state.pt", map_location="cpu", weights_only=True)
    return state


def _digests(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): file_sha256(path)
            for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "files.json"}  # fmt: skip


def _fault(checkpoint: Path) -> str | None:
    """What is wrong with the files that were written; others, such as a file manager leaves, are nobody's concern."""
    try:
        written = read_json(checkpoint / "files.json", CheckpointFiles).sha256
        wrong = [name for name, digest in sorted(written.items()) if _digest(checkpoint / name) != digest]
    except DataError as error:
        if isinstance(error.__cause__, (FileNotFoundError, ValidationError)):
            return f"damaged ({error})"
        raise
    return f"damaged ({', '.join(wrong)} not as written)" if wrong else None


def _digest(path: Path) -> str | None:
    """None where the file is gone."""
    try:
        return file_sha256(path)
    except DataError as error:
        if isinstance(error.__cause__, (FileNotFoundError, NotADirectoryError)):
            return None
        raise
