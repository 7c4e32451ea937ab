"""The settings of the service: one TOML file, `unijudge judge serve --example` prints it."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from unijudge.images.decoding import LARGE, MAX_PIXELS
from unijudge.images.image_processing import PixelBudget
from unijudge.judging.prompt import Prompt
from unijudge.judging.reranker_file import JUDGE_MAX_PIXELS, JUDGE_MIN_PIXELS
from unijudge.settings import Settings
from unijudge.storage.locations import LocalPath, ModelName

SMALLEST_SHARE = 0.01
"""Of a GPU, for one replica."""


class ModelSettings(Settings):
    """Which model judges, and on what."""

    backend: Literal["auto", "vllm", "transformers", "scripted"] = "auto"
    """`vllm` is the production engine, `transformers` the exact reference; `auto` takes vLLM where it is installed.
    `scripted` answers from a hash of the pair, for load and fault tests only."""
    name: ModelName = ""
    """A Qwen2-VL, Qwen2.5-VL, Qwen3-VL, InternVL, LLaVA-NeXT or LLaVA-OneVision, in the layout of transformers: a hub
    name, or a folder."""
    revision: str | None = None
    """The commit of a hub model; pin it, or a new upload becomes another judge."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """The dtype of the weights. bfloat16 halves memory and time on a GPU, and rounds scores: expect differences of 0.1
    in log-odds."""
    head_dtype: Literal["float32", "model"] = "float32"
    """The dtype in which the last layer makes logits from hidden states. `model` is the model's own: in bfloat16,
    logits between 16 and 32 then differ by multiples of 0.125, so many pairs get equal scores. The released scores of
    UniME-V2 look like that. A model with a quantised last layer needs `model`."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where it runs; `auto` takes a GPU when this replica has one."""
    min_pixels: int = Field(JUDGE_MIN_PIXELS, gt=0)
    """Smaller images are scaled up to this many pixels, or as near to it as `max_pixels` allows."""
    max_pixels: int = Field(JUDGE_MAX_PIXELS, gt=0)
    """Larger images are scaled down to this many pixels. 28 × 28 are one token of Qwen2-VL and Qwen2.5-VL, 32 × 32 of
    Qwen3-VL; the other families cut what is left into tiles of their own, of up to some thousand tokens in all."""
    max_tokens: int = Field(8192, gt=0)
    """Longest prompt of one pair or one list, in tokens; a longer one is answered with an error, never cut."""
    batch_tokens: int = Field(16384, gt=0)
    """transformers: how many tokens run at once, padding included; lower it when memory runs out."""
    max_num_seqs: int = Field(256, gt=0)
    """vLLM: how many pairs run at once."""
    scripted_delay_s: float = Field(0.0, ge=0)
    """How long the scripted judge takes for a request, in seconds."""

    @model_validator(mode="after")
    def _a_size_fits(self) -> Self:
        PixelBudget(self.min_pixels, self.max_pixels)  # refuses bounds that no size meets
        return self


class EngineSettings(Settings):
    """How vLLM runs on a GPU. What is left out is computed from the model and the GPU."""

    gpu_memory_utilization: float | None = Field(None, gt=0, le=1)
    """The share of a whole GPU's memory that one replica may use: weights, work space and cache. Left out: 0.92, times
    gpus_per_replica where that is less than 1."""
    max_num_batched_tokens: int | None = Field(None, ge=512)
    """Tokens that the engine computes in one step. Left out: up to 8,192 (16,384 on a GPU of 140 GB), less where the
    memory is needed for the cache."""
    graphs: Literal["off", "piecewise"] = "off"
    """`off` runs kernels one by one. `piecewise` compiles the model and records its steps as CUDA graphs: a start that
    takes minutes longer, and less time in the CPU for small steps. A judge computes one token, so it has no decoding
    that graphs would speed up."""
    attention: Literal["auto", "FLASH_ATTN", "FLASHINFER", "TRITON_ATTN"] = "auto"
    """The attention kernels of the language model. `auto` leaves the choice to vLLM, except on Blackwell: there vLLM
    would take FLASHINFER, which compiles kernels at its first use and needs nvcc, and `auto` takes FLASH_ATTN."""
    sampler: Literal["torch", "flashinfer"] = "torch"
    """What draws a token. A judge reads probabilities and draws nothing; `flashinfer` compiles a kernel at start: it
    needs nvcc."""
    multiprocessing: bool | None = None
    """Whether the engine runs in a process of its own. Left out: yes on a GPU, no on a CPU."""


class LimitSettings(Settings):
    """What one request may hold; beyond it the request is refused, never cut."""

    max_candidates: int = Field(64, gt=0)
    """Candidates in a request; clients split larger queries by themselves."""
    max_body_bytes: int = Field(32 * 2**20, gt=2**12)
    """Size of a request's body, in bytes; of the images that it names by hash, too, and of one such image."""
    max_pixels: int = Field(MAX_PIXELS, gt=0)
    """Width × height of an image before any scaling; larger ones are answered with an error, undecoded. Above 50
    million pixels an image is halved while it is decoded, one at a time."""
    max_request_pixels: int = Field(16 * LARGE, gt=0)
    """Width × height of all different images of a request, added up. Decoding this many pixels takes about three
    seconds for JPEG files and forty seconds for PNG files with transparency."""


class FrontSettings(Settings):
    """Who works and who waits. A request that cannot be answered in time is refused at once, with 429."""

    max_ongoing_requests: int = Field(4, gt=0)
    """Requests that a replica works on at once; the rest wait."""
    max_queued_requests: int = Field(256, gt=0)
    """Requests that may wait for one replica."""
    max_wait_s: float = Field(30, gt=0)
    """How long a request may wait for its turn, in seconds. What would wait longer is refused before its body is
    read; the estimate comes from the work that waits and the time that earlier work took."""
    request_timeout_s: float = Field(300, gt=0)
    """How long a request may take, waiting included, in seconds; a caller says with `Judge-Timeout` if it waits for a
    shorter time. What is not answered by then is not worked on any further."""
    body_timeout_s: float = Field(60, gt=0)
    """How long the body of a request may take to arrive, in seconds."""
    max_held_bytes: int = Field(2**30, gt=0)
    """Size of all bodies of requests that are not answered yet, in bytes; in each replica, and in Ray's proxy."""
    max_requests: int = Field(4096, gt=0)
    """Requests that are not answered yet, those whose body is still arriving included; likewise."""


class BlobSettings(Settings):
    """Where images are kept that clients send once and name by their hash from then on."""

    folder: LocalPath | None = None
    """One folder that all replicas see. Without it a service on its own Ray makes a temporary one; on a cluster images
    then travel inside the requests."""
    max_bytes: int = Field(4 * 2**30, gt=0)
    """Size of the folder; each replica may exceed it by a sixteenth. What was used longest ago goes first."""
    min_age_s: float = Field(60, ge=0)
    """What was used in the last so many seconds stays, in seconds; if there is no room then, images are refused."""


class HealthSettings(Settings):
    """When a replica counts as alive and as fit. One that is not is replaced; one that is not fit scores nothing."""

    liveness_window_s: float = Field(30, gt=0)
    """Alive without a question is who scored a pair in the last so many seconds; else a known pair is tried."""
    timeout_s: float = Field(60, gt=0)
    """How long that pair may take, in seconds: longer than a full request does, since it waits behind those in work. A
    replica whose process answers nothing at all is replaced after three times as long, and 90 seconds at most."""
    min_label_mass: float = Field(0.5, ge=0, le=1)
    """Least probability of Yes and No together on known pairs; below it the model is not answering the question."""
    canary_every_s: float = Field(300, ge=0)
    """How often each replica makes sure, by itself, that a known match beats a known mismatch, of texts and of
    pictures, in seconds; 0: never."""


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
    """GPUs that Ray reserves for each replica. 0.5 puts two replicas on one GPU."""
    cpus_per_replica: float = Field(1, gt=0)
    """CPU cores that Ray reserves for each replica. On a GPU take 4: preparing images is work for the CPU."""
    tensor_parallel_size: int = Field(1, gt=0)
    """GPUs over which one copy of the model is split, with vLLM; the transformers backend takes 1 only."""
    start_attempts: int = Field(1, gt=0)
    """How often the service tries to start its replicas before it stops with the reason."""
    pass_environment: tuple[str, ...] = (
        "CC", "CUDA_HOME", "HF_ENDPOINT", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "NCCL_DEBUG", "NCCL_P2P_*",
        "PYTORCH_ALLOC_CONF", "TRANSFORMERS_OFFLINE", "TRITON_CACHE_DIR", "VLLM_CACHE_ROOT", "VLLM_LOGGING_LEVEL",
        "VLLM_USE_*",
    )  # fmt: skip
    """With `address`: environment variables of this shell that the replicas get, by name or pattern. Ray keeps their
    values where everyone on the cluster can read them, so name no secret here."""
    log_folder: LocalPath | None = None
    """Where each replica writes the log of its engine, on its own machine. Left out: `unijudge-logs` in the temporary
    folder."""
    drain_timeout_s: float = Field(20, ge=0)
    """How long requests in flight may still take when the service stops, in seconds."""
    model: ModelSettings = ModelSettings()
    engine: EngineSettings = EngineSettings()
    prompt: Prompt = Prompt()
    limits: LimitSettings = LimitSettings()
    front: FrontSettings = FrontSettings()
    blobs: BlobSettings = BlobSettings()
    health: HealthSettings = HealthSettings()

    @property
    def url(self) -> str:
        """Where a caller on this machine finds the service."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @model_validator(mode="after")
    def _split_over_its_own_gpus(self) -> Self:
        if self.tensor_parallel_size > max(1.0, self.gpus_per_replica):
            raise ValueError(
                f"tensor_parallel_size is {self.tensor_parallel_size}, but gpus_per_replica is "
                f"{self.gpus_per_replica:g}; a replica's GPUs are the ones its copy is split over: set both alike"
            )
        return self

    @field_validator("gpus_per_replica")
    @classmethod
    def _whole_above_one(cls, gpus: float) -> float:
        share_is_odd = 0 < gpus < SMALLEST_SHARE
        if share_is_odd or (gpus > 1 and gpus != int(gpus)):
            raise ValueError(f"{gpus:g} GPUs: Ray gives a replica a share of one GPU, or whole ones. Set 0.5, 1, 2, …")
        return gpus
