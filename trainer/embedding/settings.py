"""The settings of the systems that embed. `train embed` reads one TOML file, and `--example` prints that file."""

from typing import Literal

from pydantic import Field

from trainer.models.settings import BackboneSettings
from unijudge.settings import Settings
from unijudge.storage.locations import LocalPath, Location, ModelName


class EmbedSettings(Settings):
    """The settings of one embedding of a whole corpus."""

    corpus: Location
    """The folder of the corpus, written by `mine import`."""
    out: Location
    """The folder of the vectors."""
    model: BackboneSettings = BackboneSettings()
    batch_size: int = Field(64, gt=0)
    """Number of inputs that a process reads at the same time. Inputs of similar length then run together."""
    workers: int = Field(2, ge=0)
    """Number of threads in each process that read and prepare the next inputs while the model runs. 0: inputs are
    prepared without threads."""
    dtype: Literal["float16", "float32"] = "float16"
    """The dtype of the stored vectors."""


class SentenceTransformersSettings(Settings):
    """The settings of a sentence-transformers model."""

    name: ModelName = ""
    """A hub name or a folder. Required with system = "sentence-transformers"."""
    revision: str | None = None
    """The commit of a hub model."""
    device: str | None = None
    """The device, as torch names it. Without a value, sentence-transformers chooses the device."""


class EndpointSettings(Settings):
    """The settings of an OpenAI-compatible embedding endpoint."""

    url: str = "http://127.0.0.1:8000"
    """The URL of the endpoint, without /v1/embeddings. For system = "endpoint"."""
    model: str = ""
    """The name under which the endpoint serves the model."""
    key_file: LocalPath | None = None
    """A file with the bearer key, if the endpoint requires a key."""
    texts: Literal["messages", "input"] = "messages"
    """The form of texts in requests. `messages`: through the model's chat template (vLLM's extension). `input`:
    OpenAI's plain `input`. Images are always sent as messages."""
    extra: dict[str, bool | int | str] = Field({})
    """Further fields of each request, such as dimensions. A model that embeds at the start of its answer, as the models
    of this project do, needs add_generation_prompt = true, since vLLM adds no generation prompt by default."""
    max_in_flight: int = Field(16, gt=0)
    """Largest number of requests that each process sends at the same time."""
    timeout_s: float = Field(120, gt=0)
    """Time limit for one request, in seconds."""
    retry_for_s: float = Field(300, gt=0)
    """Time for retries while the endpoint answers no request at all, in seconds. All requests share this time."""
