"""The settings of a benchmark. `train benchmark` reads one TOML file, and `--example` prints that file."""

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from trainer.embedding.settings import EndpointSettings, SentenceTransformersSettings
from trainer.models.settings import BackboneSettings
from unijudge.settings import Settings
from unijudge.storage.locations import Location

INSTRUCTION = "Find an image caption describing the given image."
"""The text that the authors of UniME-V2 add to each image of Flickr30K, COCO, ShareGPT4V, Urban1K and SugarCrepe."""


class BenchmarkSettings(Settings):
    """The settings of a benchmark of one system."""

    root: Location
    """The folder of the published data. `--list` shows which files of each set are found and which are missing."""
    out: Location = Path("benchmark")
    """The folder of the results: corpora/, a folder for each system, table.md and table.json. Several systems may share
    this folder."""
    name: str = Field("", pattern=r"^([\w][\w.+-]*)?$")
    """The name of the system in the table and of its folder. Empty: the name of the run, of the folder or of the
    model."""
    benchmarks: tuple[str, ...] = ()
    """The benchmarks or sets to measure, such as mmeb, mmeb/VOC2007 or flickr30k. Empty: all sets with data."""
    allow_partial: bool = False
    """Whether to measure also sets whose number of queries differs from the published number. The table marks these
    sets."""
    instruction: str = INSTRUCTION
    """The text that is added to each image of the zero-shot sets. Empty: no text. MMEB has its own instructions."""
    batch_size: int = Field(32, gt=0)
    """Number of inputs in a batch of each process."""
    workers: int = Field(2, ge=0)
    """Number of threads in each process that read and prepare the next inputs while the system runs. 0: inputs are
    prepared without threads."""
    system: Literal["unijudge", "sentence-transformers", "endpoint"] = "unijudge"
    """The kind of system. `unijudge`: a model of this project, with the settings of the group model.
    `sentence-transformers` and `endpoint`: a system with the settings of the group of that name."""
    model: BackboneSettings = BackboneSettings()
    sentence_transformers: SentenceTransformersSettings = SentenceTransformersSettings()
    endpoint: EndpointSettings = EndpointSettings()

    @field_validator("model")
    @classmethod
    def _measures_all(cls, model: BackboneSettings) -> BackboneSettings:
        if model.on_long == "skip":
            raise ValueError(
                "on_long = 'skip' would leave out queries and candidates, but a benchmark measures all of them. Set "
                "on_long = 'truncate', as other systems do"
            )
        return model

    @property
    def label(self) -> str:
        """The name of the system."""
        run = self.model.adapter.resolve().parent.name if self.model.adapter else None
        names = {
            "unijudge": run or self.model.name,
            "sentence-transformers": self.sentence_transformers.name,
            "endpoint": self.endpoint.model,
        }
        return self.name or Path(names[self.system]).name

    @property
    def on_cpu(self) -> bool:
        """Whether the system needs no GPU in this process."""
        devices = {
            "unijudge": self.model.device,
            "sentence-transformers": self.sentence_transformers.device,
        }
        return devices.get(self.system, "cpu") == "cpu"
