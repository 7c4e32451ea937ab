"""The settings of a benchmark: one TOML file, `--example` prints it."""

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from trainer.embedding.settings import EndpointSettings, SentenceTransformersSettings
from trainer.models.settings import BackboneSettings
from unijudge.settings import Settings
from unijudge.storage.locations import Location

INSTRUCTION = "Find an image caption describing the given image."
"""What the authors of UniME-V2 put beside each image of Flickr30K, COCO, ShareGPT4V, Urban1K and SugarCrepe."""


class BenchmarkSettings(Settings):
    """One system, measured on published benchmarks."""

    root: Location
    """The folder that holds the data as published; `--list` says what is looked for in it, and what is there."""
    out: Location = Path("benchmark")
    """The folder of corpora/, one folder for each system, table.md and table.json; several systems share it."""
    name: str = Field("", pattern=r"^([\w][\w.+-]*)?$")
    """What the system is called in the table, and its folder; as its run, its folder or its model if empty."""
    benchmarks: tuple[str, ...] = ()
    """Benchmarks or sets, such as mmeb, mmeb/VOC2007 or flickr30k; all that are found if empty."""
    allow_partial: bool = False
    """Measure sets whose queries are not as many as published too, and mark them."""
    instruction: str = INSTRUCTION
    """What stands beside each image of the zero-shot sets (MMEB brings its own); nothing if empty."""
    batch_size: int = Field(32, gt=0)
    """Inputs at once, of each process."""
    workers: int = Field(2, ge=0)
    """Threads of each process that read and prepare inputs ahead of the system; 0: none."""
    system: Literal["unijudge", "sentence-transformers", "endpoint"] = "unijudge"
    """What is measured: a model of ours (the group model), or one of the other two groups."""
    model: BackboneSettings = BackboneSettings()
    sentence_transformers: SentenceTransformersSettings = SentenceTransformersSettings()
    endpoint: EndpointSettings = EndpointSettings()

    @field_validator("model")
    @classmethod
    def _measures_all(cls, model: BackboneSettings) -> BackboneSettings:
        if model.on_long == "skip":
            raise ValueError(
                "on_long = 'skip' would leave out queries and candidates, and a benchmark measures all of them: take "
                "'truncate', as other systems do"
            )
        return model

    @property
    def label(self) -> str:
        """What the system is called."""
        run = self.model.adapter.resolve().parent.name if self.model.adapter else None
        names = {
            "unijudge": run or self.model.name,
            "sentence-transformers": self.sentence_transformers.name,
            "endpoint": self.endpoint.model,
        }
        return self.name or Path(names[self.system]).name

    @property
    def on_cpu(self) -> bool:
        """Whether no GPU is needed."""
        devices = {"unijudge": self.model.device, "sentence-transformers": self.sentence_transformers.device}
        return devices.get(self.system, "cpu") == "cpu"
