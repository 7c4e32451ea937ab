"""The folder of a run: its settings, its environment, its metrics, its checkpoints and finally its adapter.

    settings.json  environment.json  metrics.jsonl  checkpoints/step-000200/  adapter/  report.html

The adapter and each checkpoint are complete or absent. Only the first of several processes writes.
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
"""The settings that may change when a run resumes. These settings change how the training runs or how paths are
spelled, not what the model learns. Digests identify the contents of `corpus` and `triples`. The limits of an input
belong to this set because an input beyond a limit stops a run. A higher `max_tokens` has one effect: lists of a
reranker are no longer shortened to the lower limit."""
LIMIT = "model.max_tokens"
"""The setting that changes what the model learns if longer inputs are cut or left out."""
THEN = ", then "
"""The separator between the versions of a library that one run has used."""
OWN = {"settings.json", "environment.json", "trackers"}
"""The names in the folder of a run that has just started."""


class Run:
    """The folder of one training run."""

    def __init__(self, folder: Path, settings: BaseModel, inputs: Mapping[str, str]):
        """Starts a run, or resumes an existing run.

        Args:
            folder: The folder of the run.
            settings: The requested settings.
            inputs: Name → digest of each input of the training.

        Raises:
            DataError: The folder holds a run with other settings, the inputs of the run have changed, or the folder
                holds other files.
        """
        self.folder = folder
        self.checkpoints = Checkpoints(folder / "checkpoints")
        begun = Beginning(
            settings=settings.model_dump(mode="json"), inputs=dict(inputs), made=Provenance.now()
        )
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
        changed += [
            f"{name} differ"
            for name in inputs_of_both
            if found.inputs.get(name) != begun.inputs.get(name)
        ]
        if changed:
            raise DataError(
                f"{folder}: holds a run with other settings or inputs: {'; '.join(changed)}. Give another folder, or "
                "the settings and inputs of that run"
            )

    @property
    def adapter(self) -> Path:
        """The folder of the trained adapter, which exists once the run is finished."""
        return self.folder / "adapter"

    @property
    def merged(self) -> Path:
        """The folder of the model with the adapter merged into its weights. Only a reranker's run has this folder."""
        return self.folder / "merged"

    def note_versions(self) -> None:
        """Records changed versions of libraries in environment.json, and warns about each changed version."""
        path, current = self.folder / "environment.json", _versions()
        recorded = read_json(path, Versions).root
        changed = {
            name: new
            for name, new in current.items()
            if recorded.get(name, "").split(THEN)[-1] != new
        }
        if changed:
            changes = ", ".join(
                f"{name} {new} (was {recorded.get(name, 'unknown')})"
                for name, new in changed.items()
            )
            logger.warning(
                "%s: resumes with other versions of its libraries: %s", self.folder, changes
            )
            noted = {
                name: f"{recorded[name]}{THEN}{new}" if name in recorded else new
                for name, new in changed.items()
            }
            publish_json(path, Versions(recorded | noted))

    def finish(self, save_weights: Callable[[Path], None]) -> None:
        """Publishes the adapter, which marks the run as finished."""
        with publishing_folder(self.adapter) as draft:
            save_weights(draft)

    def log(self, **metrics: float) -> None:
        """Adds one line to metrics.jsonl.

        Raises:
            DataError: The line could not be written.
        """
        path = self.folder / "metrics.jsonl"
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(metrics) + "\n")
        except OSError as error:
            raise unwritable(path, error) from error

    def forget_after(self, step: int) -> None:
        """Removes the metrics of the steps after `step`, since the resumed run repeats these steps."""
        path = self.folder / "metrics.jsonl"
        if path.exists():
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            publish_text(path, "".join(line for line in lines if _step(line) <= step))


def settings_of(path: Path, begun: Beginning, kind: type[S]) -> S:
    """Returns the settings with which a run started. A setting that an older program did not know has its default.

    Raises:
        DataError: The settings are those of another kind of training or of another version.
    """
    try:
        return kind.model_validate(begun.settings)
    except ValidationError as error:
        fault = error.errors()[0]
        raise DataError(
            f"{path}: not the settings of this kind of training in this version ({'.'.join(map(str, fault['loc']))}: "
            f"{fault['msg']}). Use the version that started the run, or give another folder"
        ) from error


def _versions() -> dict[str, str]:
    """Returns the versions of the libraries in this process."""
    return {name: version(name) for name in PACKAGES} | {"python": platform.python_version()}


def _step(line: str) -> float:
    """Returns the step of a line. An incomplete line, left by a crash, has an infinite step and is thus removed."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
