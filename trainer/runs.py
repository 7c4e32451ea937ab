"""A run's folder: what it began with, environment, metrics line by line, checkpoints, and in the end the adapter.

    settings.json  environment.json  metrics.jsonl  checkpoints/step-000200/{adapter/, state.pt}  adapter/
    report.html

A checkpoint and the adapter are whole or absent. The last whole checkpoint is where an interrupted run goes on.
"""

import json
import platform
import shutil
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel

from unijudge.errors import DataError
from unijudge.files import publish_json, publish_text, publishing_folder, read_json
from unijudge.provenance import Beginning, Provenance

PACKAGES = ("unijudge", "torch", "transformers", "peft", "accelerate")
KEPT_CHECKPOINTS = 2


class Run:
    """One training on disk."""

    def __init__(self, folder: Path, settings: BaseModel, inputs: Mapping[str, str]):
        """Starts a run, or goes on with one.

        Args:
            folder: Where.
            settings: What was asked for.
            inputs: Name → digest of everything that is trained on.

        Raises:
            DataError: The folder holds a run with other settings, or its inputs have changed since.
        """
        self.folder = folder
        begun = Beginning(settings=settings.model_dump(mode="json"), inputs=dict(inputs), made=Provenance.now())
        path = folder / "settings.json"
        if not path.exists():
            environment = {name: version(name) for name in PACKAGES} | {"python": platform.python_version()}
            publish_text(folder / "environment.json", json.dumps(environment, indent=2) + "\n")
            publish_json(path, begun)
        found = read_json(path, Beginning)
        changed = [name for name, value in found.settings.items() if value != begun.settings.get(name)]
        changed += [name for name, value in found.inputs.items() if value != begun.inputs.get(name)]
        if changed:
            raise DataError(
                f"{folder}: holds a run that began otherwise ({', '.join(changed)} differ); give another folder, or "
                "delete this one"
            )

    @property
    def adapter(self) -> Path:
        """Where the trained adapter lies once the run is finished."""
        return self.folder / "adapter"

    @property
    def merged(self) -> Path:
        """Where the model lies with the adapter merged into it, once that was asked for."""
        return self.folder / "merged"

    @property
    def latest(self) -> Path | None:
        """The last whole checkpoint."""
        steps = sorted((self.folder / "checkpoints").glob("step-??????"))
        return steps[-1] if steps else None

    def save(self, step: int, state: dict[str, Any], save_weights: Callable[[Path], None]) -> None:
        """Publishes a checkpoint, and removes the older ones."""
        checkpoint = self.folder / "checkpoints" / f"step-{step:06d}"
        with publishing_folder(checkpoint) as draft:
            save_weights(draft / "adapter")
            torch.save(state, draft / "state.pt")
        for old in sorted(checkpoint.parent.glob("step-??????"))[:-KEPT_CHECKPOINTS]:
            shutil.rmtree(old)

    def finish(self, save_weights: Callable[[Path], None]) -> None:
        """Publishes the adapter: the run is done."""
        with publishing_folder(self.adapter) as draft:
            save_weights(draft)

    def log(self, **metrics: float) -> None:
        """Adds one line to metrics.jsonl."""
        with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(metrics) + "\n")

    def forget_after(self, step: int) -> None:
        """Removes the metrics of steps that will be done again."""
        path = self.folder / "metrics.jsonl"
        if path.exists():
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            publish_text(path, "".join(line for line in lines if _step(line) <= step))


def _step(line: str) -> float:
    """The step of a line; a line torn by a kill belongs to no step that is kept."""
    try:
        return float(json.loads(line)["step"])
    except (json.JSONDecodeError, KeyError):
        return float("inf")
