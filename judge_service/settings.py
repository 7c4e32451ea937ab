"""The settings of the service: a TOML file. `unijudge judge serve --example` prints an example."""

from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from unijudge.images.decoding import LARGE, MAX_PIXELS
from unijudge.images.image_processing import PixelBudget
from unijudge.judging.prompt import Prompt
from unijudge.judging.reranker_file import JUDGE_MAX_PIXELS, JUDGE_MIN_PIXELS
from unijudge.settings import Settings
from unijudge.storage.locations import LocalPath, ModelName

SMALLEST_SHARE = 0.01
"""The smallest share of a GPU for one replica."""


class ModelSettings(Settings):
    """The model that judges, and its backend."""

    backend: Literal["auto", "vllm", "transformers", "scripted"] = "auto"
    """The engine. `vllm` is the production engine, `transformers` the exact reference. `auto` uses vLLM if vLLM is
    installed. `scripted` scores pairs by a hash, only for load and fault tests."""
    name: ModelName = ""
    """A hub name or a folder of a Qwen2-VL, Qwen2.5-VL, Qwen3-VL, InternVL, LLaVA-NeXT or LLaVA-OneVision model, in the
    layout of transformers."""
    revision: str | None = None
    """The commit of a hub model. Without a pinned commit, a new upload changes the judge."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """The dtype of the weights. bfloat16 halves memory and time on a GPU, but rounds scores: expect differences of 0.1
    in log-odds."""
    head_dtype: Literal["float32", "model"] = "float32"
    """The dtype in which the last layer computes logits from hidden states. `model` is the dtype of the weights: in
    bfloat16, logits between 16 and 32 then differ by multiples of 0.125, so many pairs get equal scores. The released
    scores of UniME-V2 have such ties. A model with a quantised last layer needs `model`."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """The device of the model. `auto` uses a GPU if the replica has a GPU."""
    min_pixels: int = Field(JUDGE_MIN_PIXELS, gt=0)
    """The number of pixels to which smaller images are enlarged, as far as `max_pixels` allows."""
    max_pixels: int = Field(JUDGE_MAX_PIXELS, gt=0)
    """The number of pixels to which larger images are reduced. A token has 28 × 28 pixels in Qwen2-VL and Qwen2.5-VL,
    and 32 × 32 in Qwen3-VL. The other families then split the image into tiles, with up to some thousand tokens."""
    max_tokens: int = Field(8192, gt=0)
    """The longest prompt of a pair or a list, in tokens. A longer prompt gets an error, and is never truncated."""
    batch_tokens: int = Field(16384, gt=0)
    """transformers: the number of tokens in a batch, including padding. Lower this value if memory runs out."""
    vision_cache_mb: int = Field(1024, ge=0)
    """transformers: MiB of main memory for image features. A picture that occurs in several queries then passes through
    the vision tower once, as long as its features are kept. The scores do not depend on this value."""
    max_num_seqs: int = Field(256, gt=0)
    """vLLM: the largest number of pairs that run at the same time."""
    scripted_delay_s: float = Field(0.0, ge=0)
    """Seconds that the scripted judge needs for a request."""

    @model_validator(mode="after")
    def _a_size_fits(self) -> Self:
        # Raises if no image size is within the limits.
        PixelBudget(self.min_pixels, self.max_pixels)
        return self


class EngineSettings(Settings):
    """The options of vLLM on a GPU. Unset options are computed from the model and the GPU.

    Every other name in this table is an argument of vLLM's engine, such as `quantization` or `kv_cache_dtype`. The
    service checks these arguments before it starts. Arguments that may change scores belong to the judge's identity.
    """

    model_config = ConfigDict(extra="allow")

    gpu_memory_utilization: float | None = Field(None, gt=0, le=1)
    """The share of a whole GPU's memory that one replica may use: weights, work space and cache. Unset: 0.92, or
    0.92 × gpus_per_replica if gpus_per_replica is less than 1."""
    max_num_batched_tokens: int | None = Field(None, ge=512)
    """The number of tokens that the engine computes in a step. Unset: up to 8,192 (16,384 on a GPU of 140 GB), or less
    if the cache needs the memory."""
    pipeline_parallel_size: int = Field(1, gt=0)
    """The number of parts into which vLLM splits the layers of one copy of the model, each on its own GPUs."""
    graphs: Literal["off", "piecewise"] = "off"
    """`off` runs kernels one by one. `piecewise` compiles the model and records its steps as CUDA graphs: the start
    takes minutes longer, and small steps need less CPU time. A judge computes one token, so graphs cannot speed up
    decoding."""
    attention: Literal["auto", "FLASH_ATTN", "FLASHINFER", "TRITON_ATTN"] = "auto"
    """The attention kernels of the language model. `auto` leaves the choice to vLLM, except on Blackwell. There vLLM
    would use FLASHINFER, which compiles kernels at its first use and needs nvcc, so `auto` uses FLASH_ATTN."""
    sampler: Literal["torch", "flashinfer"] = "torch"
    """The sampler of tokens. A judge reads probabilities and samples no tokens. `flashinfer` compiles a kernel at its
    start, which needs nvcc."""
    multiprocessing: bool | None = None
    """Whether the engine runs in a separate process. Unset: yes on a GPU, no on a CPU."""

    @property
    def arguments(self) -> dict[str, Any]:
        """The additional arguments of vLLM's engine: name → value."""
        return dict(self.model_extra or {})


class LimitSettings(Settings):
    """The limits of a request. A request above a limit is rejected, and never truncated."""

    max_candidates: int = Field(64, gt=0)
    """The largest number of candidates in a request. Clients split larger queries automatically."""
    max_documents: int = Field(1000, gt=0)
    """The largest number of documents in a request of a compatible route, such as /v1/rerank. Its documents are judged
    in groups of `max_candidates`."""
    max_body_bytes: int = Field(32 * 2**20, gt=2**12)
    """The largest size of a request's body, in bytes. The images that a request names by hash have the same limit in
    total, and so has an uploaded image."""
    max_pixels: int = Field(MAX_PIXELS, gt=0)
    """The largest width × height of an image before scaling. A larger image gets an error, and is not decoded. Images
    above 50 million pixels are decoded one at a time, at half of their width and height or less."""
    max_request_pixels: int = Field(16 * LARGE, gt=0)
    """The largest sum of width × height over all distinct images of a request. To decode this many pixels takes about
    three seconds for JPEG files and forty seconds for PNG files with transparency."""


class FrontSettings(Settings):
    """The limits of running and waiting requests. A request that cannot be answered in time gets 429 immediately."""

    max_ongoing_requests: int = Field(4, gt=0)
    """The largest number of requests that a replica runs at the same time. Other requests wait."""
    max_queued_requests: int = Field(256, gt=0)
    """The largest number of requests that wait for a replica."""
    max_wait_s: float = Field(30, gt=0)
    """The longest time that a request may wait in the queue, in seconds. A request that would wait longer is rejected
    before its body is read. The estimate comes from the waiting work and the duration of earlier work."""
    request_timeout_s: float = Field(300, gt=0)
    """The longest time from a request to its answer, in seconds, including waiting. A client can set a shorter time
    with the header `Judge-Timeout`. After this time, the work on the request stops."""
    body_timeout_s: float = Field(60, gt=0)
    """The longest time until the body of a request has arrived, in seconds."""
    max_held_bytes: int = Field(2**30, gt=0)
    """The largest size of all bodies of unanswered requests, in bytes: in each replica, and in Ray's proxy."""
    max_requests: int = Field(4096, gt=0)
    """The largest number of unanswered requests, including requests whose body is still arriving: in each replica, and
    in Ray's proxy."""


class BlobSettings(Settings):
    """The store of images that clients upload once and then name by hash."""

    folder: LocalPath | None = None
    """A folder that all replicas can use. Unset: with a local Ray, the service creates a temporary folder. On a
    cluster, images are then sent inside the requests."""
    max_bytes: int = Field(4 * 2**30, gt=0)
    """The largest size of the folder, in bytes. Each replica can exceed this size by a sixteenth. The least recently
    used images are removed first."""
    min_age_s: float = Field(60, ge=0)
    """Seconds during which an image is kept after its last use. If the folder is then full, new images are rejected."""


class HealthSettings(Settings):
    """The health checks of replicas. Dead replicas are replaced. Unfit replicas score no pairs."""

    liveness_window_s: float = Field(30, gt=0)
    """Seconds after a scored pair in which a replica counts as alive. Later the replica must score a known pair."""
    timeout_s: float = Field(60, gt=0)
    """Seconds in which the known pair must be scored. This time must be longer than a full request, since the known
    pair waits behind running requests. A replica whose process does not answer at all is replaced after three times
    this time, but at most after 90 seconds."""
    min_label_mass: float = Field(0.5, ge=0, le=1)
    """The lowest probability of Yes and No together on known pairs. Below this value the model is not answering the
    question."""
    canary_every_s: float = Field(300, ge=0)
    """Seconds between two canary checks of a replica: a known match must score above a known mismatch, with texts and
    with pictures. 0: never."""


class ServiceSettings(Settings):
    """The settings of the judge service."""

    host: str = "127.0.0.1"
    """The address to listen on. If other machines can reach the address, set key_sha256."""
    port: int = Field(8000, ge=0, le=65535)
    """The TCP port. 0: any free port."""
    key_sha256: tuple[Annotated[str, Field(pattern="^[0-9a-fA-F]{64}$")], ...] = ()
    """The SHA-256 of each accepted bearer key (`unijudge judge key` creates a key). Empty: no key is required."""
    replicas: int = Field(1, gt=0)
    """The number of copies of the model."""
    address: str | None = None
    """The Ray cluster to join, for example `auto` or `ray://head:10001`. Unset: the service starts a local Ray."""
    gpus_per_replica: float = Field(0, ge=0)
    """The number of GPUs that Ray reserves for each replica. With 0.5, two replicas share a GPU."""
    cpus_per_replica: float = Field(1, gt=0)
    """The number of CPU cores that Ray reserves for each replica. On a GPU use 4, since the CPU prepares the images."""
    tensor_parallel_size: int = Field(1, gt=0)
    """The number of GPUs over which vLLM splits one copy of the model. The transformers backend only supports 1."""
    start_attempts: int = Field(1, gt=0)
    """The number of attempts to start the replicas. After the last attempt, the service stops with the error."""
    pass_environment: tuple[str, ...] = (
        "CC", "CUDA_HOME", "HF_ENDPOINT", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "NCCL_DEBUG", "NCCL_P2P_*",
        "PYTORCH_ALLOC_CONF", "TRANSFORMERS_OFFLINE", "TRITON_CACHE_DIR", "VLLM_CACHE_ROOT", "VLLM_LOGGING_LEVEL",
        "VLLM_USE_*",
    )  # fmt: skip
    """With `address`: environment variables of this shell that the replicas get, by name or pattern. All users of the
    cluster can read their values in Ray, so do not name secrets here."""
    log_folder: LocalPath | None = None
    """The folder for the log of each replica's engine, on the replica's machine. Unset: `unijudge-logs` in the
    temporary folder."""
    drain_timeout_s: float = Field(20, ge=0)
    """Seconds in which running requests must finish when the service stops."""
    model: ModelSettings = ModelSettings()
    engine: EngineSettings = EngineSettings()
    prompt: Prompt = Prompt()
    limits: LimitSettings = LimitSettings()
    front: FrontSettings = FrontSettings()
    blobs: BlobSettings = BlobSettings()
    health: HealthSettings = HealthSettings()

    @property
    def url(self) -> str:
        """The URL of the service for clients on this machine."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def gpus_of_a_copy(self) -> int:
        """The number of GPUs over which vLLM splits one copy of the model."""
        return self.tensor_parallel_size * self.engine.pipeline_parallel_size

    @model_validator(mode="after")
    def _split_over_its_own_gpus(self) -> Self:
        if self.gpus_of_a_copy > max(1.0, self.gpus_per_replica):
            name, cure = "tensor_parallel_size", "Set both to the same number"
            if self.engine.pipeline_parallel_size > 1:
                name = "tensor_parallel_size × engine.pipeline_parallel_size"
                cure = f"Set gpus_per_replica = {self.gpus_of_a_copy}"
            raise ValueError(
                f"{name} is {self.gpus_of_a_copy}, but gpus_per_replica is {self.gpus_per_replica:g}: the copy of a "
                f"replica is split over the GPUs of this replica. {cure}"
            )
        return self

    @field_validator("gpus_per_replica")
    @classmethod
    def _whole_above_one(cls, gpus: float) -> float:
        share_is_odd = 0 < gpus < SMALLEST_SHARE
        if share_is_odd or (gpus > 1 and gpus != int(gpus)):
            raise ValueError(
                f"{gpus:g} GPUs: Ray gives a replica a share of one GPU, or whole GPUs. Set 0.5, 1, 2, …"
            )
        return gpus
