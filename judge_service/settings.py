"""The settings of the service: one TOML file, `unijudge judge serve --example` prints it."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from unijudge.images import MAX_PIXELS
from unijudge.prompt import Prompt
from unijudge.settings import Settings


class ModelSettings(Settings):
    """Which model judges, and on what."""

    backend: Literal["auto", "vllm", "transformers", "scripted"] = "auto"
    """`vllm` is the production engine, `transformers` the exact reference; `auto` takes vLLM where it is installed.
    `scripted` answers from a hash of the pair, for load and fault tests only."""
    name: str = ""
    """A Qwen2-VL, Qwen2.5-VL, Qwen3-VL, InternVL, LLaVA-NeXT or LLaVA-OneVision, in the layout of transformers: a hub
    name, or a folder."""
    revision: str | None = None
    """The commit of a hub model; pin it, or a new upload becomes another judge."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """bfloat16 halves memory and time on a GPU, and rounds scores: expect differences of 0.1 in log-odds."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where it runs; `auto` takes a GPU when this replica has one."""
    min_pixels: int = Field(4 * 28 * 28, gt=0)
    """Smaller images are scaled up to this many pixels."""
    max_pixels: int = Field(300 * 28 * 28, gt=0)
    """Larger images are scaled down to this many pixels. 28 × 28 are one token of Qwen2-VL and Qwen2.5-VL, 32 × 32 of
    Qwen3-VL; the other families cut what is left into tiles of their own, of up to some thousand tokens in all."""
    max_tokens: int = Field(8192, gt=0)
    """Longest prompt of one pair or one list, in tokens; a longer one is answered with an error, never cut."""
    batch_tokens: int = Field(16384, gt=0)
    """transformers: how many tokens run at once, padding included; lower it when memory runs out."""
    max_sequences: int = Field(256, gt=0)
    """vLLM: how many pairs run at once."""
    scripted_delay_s: float = Field(0.0, ge=0)
    """How long the scripted judge takes for a request, in seconds."""


class LimitSettings(Settings):
    """What one request may hold; beyond it the request is refused, never cut."""

    max_candidates: int = Field(64, gt=0)
    """Candidates in a request; clients split larger queries by themselves."""
    max_body_bytes: int = Field(32 * 2**20, gt=2**12)
    """Size of a request's body, in bytes; of the images that it names by hash, too, and of one such image."""
    max_pixels: int = Field(MAX_PIXELS, gt=0)
    """Width × height of an image before any scaling; larger ones are answered with an error, undecoded."""


class BlobSettings(Settings):
    """Where images are kept that clients send once and name by their hash from then on."""

    folder: Path | None = None
    """One folder that all replicas see. Without it a service on its own Ray makes a temporary one; on a cluster images
    then travel inside the requests."""
    max_bytes: int = Field(4 * 2**30, gt=0)
    """Size of the folder; each replica may exceed it by a sixteenth. What was used longest ago goes first."""
    young_s: float = Field(60, ge=0)
    """What was used in the last so many seconds stays, in seconds; if there is no room then, images are refused."""


class HealthSettings(Settings):
    """When a replica counts as alive and as fit. One not alive is replaced; one not fit does not start."""

    fresh_s: float = Field(30, gt=0)
    """Alive without a question is who scored a pair in the last so many seconds; else a known pair is tried."""
    timeout_s: float = Field(60, gt=0)
    """How long that pair may take, in seconds: longer than a full request does, since it waits behind those in work."""
    min_mass: float = Field(0.5, ge=0, le=1)
    """Least probability of Yes and No together on known pairs; below it the model is not answering the question."""
    canary_every_s: float = Field(300, ge=0)
    """How often a known match must beat a known mismatch, and both be answered, in seconds; 0: never."""


class ServiceSettings(Settings):
    """How the judge is served."""

    host: str = "127.0.0.1"
    """Address to listen on. Beyond loopback, set key_sha256."""
    port: int = Field(8000, ge=0, le=65535)
    """TCP port."""
    key_sha256: tuple[Annotated[str, Field(pattern="^[0-9a-fA-F]{64}$")], ...] = ()
    """sha256 of the bearer keys that are accepted (`unijudge judge key` makes one); empty: no key is asked for."""
    replicas: int = Field(1, gt=0)
    """How many copies of the model."""
    address: str | None = None
    """An existing Ray cluster to join, as in `auto` or `ray://head:10001`; without it a local Ray is started."""
    gpus_per_replica: float = Field(0, ge=0)
    """GPUs that Ray reserves for each replica."""
    cpus_per_replica: float = Field(1, gt=0)
    """CPU cores that Ray reserves for each replica."""
    tensor_parallel_size: int = Field(1, gt=0)
    """GPUs over which one copy of the model is split, with vLLM; the transformers backend takes 1 only."""
    max_ongoing_requests: int = Field(4, gt=0)
    """Requests that a replica works on at once; the rest wait."""
    max_queued_requests: int = Field(64, gt=0)
    """Requests that may wait; beyond it they are refused with 429, and clients come back later."""
    request_timeout_s: float = Field(300, gt=0)
    """How long a request may take, waiting included, in seconds."""
    drain_s: float = Field(20, ge=0)
    """How long requests in flight may still take when the service stops, in seconds."""
    model: ModelSettings = ModelSettings()
    prompt: Prompt = Prompt()
    limits: LimitSettings = LimitSettings()
    blobs: BlobSettings = BlobSettings()
    health: HealthSettings = HealthSettings()
