"""A run's folder: what it began with, environment, metrics line by line, checkpoints, and in the end the adapter.

    settings.json  environment.json  metrics.jsonl  checkpoints/step-000200/  adapter/  report.html

The adapter is whole or absent, and so is a checkpoint. Of several processes the first one alone writes.
"""

import json
import platform
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from trainer.checkpoints import Checkpoints
from unijudge.errors import DataError
from unijudge.files import publish_json, publish_text, publishing_folder, read_json
from unijudge.outputs import check_folder
from unijudge.provenance import Beginning, Provenance
from unijudge.refused import unwritable

PACKAGES = ("unijudge", "torch", "transformers", "peft", "accelerate")
HOW = {
    "out", "corpus", "triples", "workers", "trackers", "save_every_steps", "gradient_checkpointing", "model.device",
    "model.attention", "model.vision_cache_mb",
}  # fmt: skip
"""Settings that change how a run is done or how its folders are spelled, not what comes of it: it may go on with
others. What corpus and triples hold is known by digest."""
OWN = {"settings.json", "environment.json", "trackers"}
"""What lies in the folder of a run that has just begun."""


class Run:
    """One training on disk."""

    def __init__(self, folder: Path, settings: BaseModel, inputs: Mapping[str, str]):
        """Starts a run, or goes on with one.

        Args:
            folder: Where.
            settings: What was asked for.
            inputs: Name → digest of everything that is trained on.

        Raises:
            DataError: The folder holds a run with other settings, its inputs have changed since, or it holds something
                else.
        """
        self.folder = folder
        self.checkpoints = Checkpoints(folder / "checkpoints")
        begun = Beginning(settings=settings.model_dump(mode="json"), inputs=dict(inputs), made=Provenance.now())
        path = folder / "settings.json"
        if not path.exists():
            check_folder(folder, OWN)
            environment = {name: version(name) for name in PACKAGES} | {"python": platform.python_version()}
            publish_text(folder / "environment.json", json.dumps(environment, indent=2) + "\n")
            publish_json(path, begun)
        found = read_json(path, Beginning)
        asked = dict(_flat(begun.settings))
        changed = [
            f"{name} was {value!r}, is {asked.get(name)!r}"
            for name, value in _flat(found.settings)
            if value != asked.get(name) and name not in HOW
        ]
        changed += [f"{name} differ" for name, value in found.inputs.items() if value != begun.inputs.get(name)]
        if changed:
            raise DataError(
                f"{folder}: holds a run that began otherwise: {'; '.join(changed)}. Give another folder, or what it "
                "began with"
            )

    @property
    def adapter(self) -> Path:
        """Where the trained adapter lies once the run is finished."""
        return self.folder / "adapter"

    @property
    def merged(self) -> Path:
        """Where the model lies with the adapter merged into it, once that was asked for."""
        return self.folder / "merged"

    def finish(self, save_weights: Callable[[Path], None]) -> None:
        """Publishes the adapter: the run is done."""
        with publishing_folder(self.adapter) as draft:
            save_weights(draft)

    def log(self, **metrics: float) -> None:
        """Adds one line to metrics.jsonl.

        Raises:
            DataError: The disk refused.
        """
        path = self.folder / "metrics.jsonl"
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(metrics) + "\n")
        except OSError as error:
            raise unwritable(path, error) from error

    def forget_after(self, step: int) -> None:
        """Removes the metrics of steps that will be done again."""
        path = self.folder / "metrics.jsonl"
        if path.exists():
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            publish_text(path, "".join(line for line in lines if _step(line) <= step))


def _flat(settings: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and their values."""
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield above + name, value


def _step(line: str) -> float:
    """The step of a line; a line torn by a kill belongs to no step that is kept."""
    try:
        return float(json.loads(line)["step"])
    except (json.JSONDecodeError, KeyError):
        return float("inf")
