"""The settings of the systems that embed: one TOML file for `train embed`, `--example` prints it."""

from typing import Literal

from pydantic import Field

from trainer.models.settings import BackboneSettings
from unijudge.settings import Settings
from unijudge.storage.locations import LocalPath, Location, ModelName


class EmbedSettings(Settings):
    """One embedding of a whole corpus."""

    corpus: Location
    """The corpus folder (`mine import`)."""
    out: Location
    """The folder of vectors."""
    model: BackboneSettings = BackboneSettings()
    batch_size: int = Field(64, gt=0)
    """Inputs read at once, by one process; they run in groups of like length."""
    workers: int = Field(2, ge=0)
    """Threads of each process that read and prepare inputs ahead of the model; 0: none."""
    dtype: Literal["float16", "float32"] = "float16"
    """Of the stored vectors."""


class SentenceTransformersSettings(Settings):
    """A model of sentence-transformers."""

    name: ModelName = ""
    """A hub name, or a folder; with system = "sentence-transformers"."""
    revision: str | None = None
    """The commit of a hub model."""
    device: str | None = None
    """Where it runs, as torch names it; its own choice if not set."""


class EndpointSettings(Settings):
    """An OpenAI-compatible embedding endpoint."""

    url: str = "http://127.0.0.1:8000"
    """Where it listens, without /v1/embeddings; with system = "endpoint"."""
    model: str = ""
    """The name under which it serves the model."""
    key_file: LocalPath | None = None
    """A file that holds its bearer key, where it wants one."""
    texts: Literal["messages", "input"] = "messages"
    """How texts are sent: through the model's chat template, as images always are (vLLM's extension), or as OpenAI's
    plain `input`."""
    extra: dict[str, bool | int | str] = Field({})
    """Further fields of each request, such as dimensions, or add_generation_prompt = true for a model that embeds where
    its answer would begin: ours do, and vLLM leaves that out unless asked."""
    max_in_flight: int = Field(16, gt=0)
    """Requests that wait for it at once, of each process."""
    timeout_s: float = Field(120, gt=0)
    """How long one request may take."""
    retry_for_s: float = Field(300, gt=0)
    """How long to go on trying while it answers nobody: one clock for all requests."""
