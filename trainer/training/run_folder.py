"""A run's folder: what it began with, environment, metrics line by line, checkpoints, and in the end the adapter.

    settings.json  environment.json  metrics.jsonl  checkpoints/step-000200/  adapter/  report.html

The adapter is whole or absent, and so is a checkpoint. Of several processes the first one alone writes.
"""

import json
import logging
import platform
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from trainer.training.checkpoints import Checkpoints
from unijudge.errors import DataError
from unijudge.provenance import Beginning, Provenance, Versions
from unijudge.settings import flattened
from unijudge.storage.access_errors import unwritable
from unijudge.storage.files import publish_json, publish_text, publishing_folder, read_json
from unijudge.storage.outputs import check_folder

S = TypeVar("S", bound=BaseModel)

logger = logging.getLogger(__name__)

PACKAGES = ("unijudge", "torch", "transformers", "peft", "accelerate")
HOW = {
    "out", "corpus", "triples", "workers", "trackers", "save_steps", "gradient_checkpointing", "model.device",
    "model.attention", "model.vision_cache_mb", "model.batch_tokens", "model.max_tokens", "model.max_source_pixels",
}  # fmt: skip
"""Settings that change how a run is done or how its folders are spelled, not what is learned: it may go on with others.
What corpus and triples hold is known by digest. The limits of an input are among them, since an input that is beyond
one stops a run; under a higher `max_tokens` a reranker's lists are no longer shortened to the lower one."""
LIMIT = "model.max_tokens"
"""Where longer inputs are cut or left out, it changes what is learned."""
THEN = ", then "
"""Between the versions of a library under which one run was trained."""
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
            publish_json(folder / "environment.json", Versions(_versions()))
            publish_json(path, begun)
        found = read_json(path, Beginning)
        was, asked = (
            dict(flattened(settings_of(path, found, type(settings)).model_dump(mode="json"))),
            dict(flattened(begun.settings)),
        )
        free = HOW if asked.get("model.on_long", "error") == "error" else HOW - {LIMIT}
        changed = [
            f"{name} was {was.get(name)!r}, is {asked.get(name)!r}"
            for name in was | asked
            if was.get(name) != asked.get(name) and name not in free
        ]
        inputs_of_both = found.inputs | begun.inputs
        changed += [f"{name} differ" for name in inputs_of_both if found.inputs.get(name) != begun.inputs.get(name)]
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

    def note_versions(self) -> None:
        """Warns where this process has other versions of the libraries than the run had so far, and notes them down."""
        path, now = self.folder / "environment.json", _versions()
        found = read_json(path, Versions).root
        other = {name: one for name, one in now.items() if found.get(name, "").split(THEN)[-1] != one}
        if other:
            said = ", ".join(f"{name} {one} (was {found.get(name, 'unknown')})" for name, one in other.items())
            logger.warning("%s: goes on with other libraries than it began with: %s", self.folder, said)
            noted = {name: f"{found[name]}{THEN}{one}" if name in found else one for name, one in other.items()}
            publish_json(path, Versions(found | noted))

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


def settings_of(path: Path, begun: Beginning, kind: type[S]) -> S:
    """What a run began with; a setting that its program did not know had its default.

    Raises:
        DataError: They are those of another training, or of another version.
    """
    try:
        return kind.model_validate(begun.settings)
    except ValidationError as error:
        fault = error.errors()[0]
        raise DataError(
            f"{path}: not the settings of such a training of this version ({'.'.join(map(str, fault['loc']))}: "
            f"{fault['msg']}); take the version that began it, or give another folder"
        ) from error


def _versions() -> dict[str, str]:
    """Of the libraries in this process."""
    return {name: version(name) for name in PACKAGES} | {"python": platform.python_version()}


def _step(line: str) -> float:
    """The step of a line; a line torn by a kill belongs to no step that is kept."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
