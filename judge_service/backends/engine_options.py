"""Settings, the size of a model and a GPU → the options of vLLM's engine, its environment and its memory.

All functions are pure: they start no process and query no GPU, so each kind of GPU can be tested on a machine without
GPUs. docs/gpu.md explains the value of each option.
"""

from dataclasses import dataclass
from typing import Any

from judge_service.backends.model_sizes import ModelSizes
from judge_service.gpus import GIB, Gpu
from judge_service.settings import ServiceSettings
from unijudge.judging.prompt import LONGEST_LIST

GPU_SHARE = 0.92
"""The share of a GPU's memory that the engine uses: vLLM's default."""
STEP_TOKENS = (16384, 8192, 4096, 2048)
"""The possible numbers of tokens in a step. The largest is only for GPUs of at least `LARGE_GPU_BYTES`."""
LARGE_GPU_BYTES = 140 * 10**9
CACHED_STEPS = 4
"""The number of steps whose tokens should fit into the cache: the current step, the next step and shared prefixes."""
LIBRARY_BYTES = GIB // 2
"""The memory of CUDA's libraries and of the allocator, in addition to the tensors."""
FLOAT32_BYTES = 4
EXACT_FLOAT32 = {"TRITON_F32_DEFAULT": "ieee", "VLLM_FLOAT32_MATMUL_PRECISION": "highest"}
"""Variables for exact float32. Without these variables Triton's attention rounds factors to the ten bits of TF32."""
EIGHT_BIT_CACHES = ("fp8", "int8")
"""The first letters of vLLM's `kv_cache_dtype` with one byte for each number."""
GPU_BLOCK_SIZE = 16
"""The number of tokens in a cache block on a GPU: vLLM's default."""
SHARED_CACHE_PART = 0.9
"""The share of the estimated cache that is used if replicas share a GPU. The rest covers errors of the estimate."""
CPU_BLOCK_SIZE = 32
"""The number of tokens in a cache block on a CPU.

CPU attention needs a multiple of 32. With the default of 128, short prefixes would not be shared.
"""


@dataclass(frozen=True)
class MemoryEstimate:
    """The memory that one GPU of a replica needs, in bytes. The numbers are computed, not measured."""

    budget: int
    """The memory that the engine may use."""
    weights: int
    work_space: int
    """The memory of one step: hidden states of language model and vision tower, logits, and CUDA's libraries."""
    cache_needed: int
    """The cache for one prompt of `model.max_tokens`."""
    cache_part: float
    """The share of the remaining memory that becomes the cache."""

    @property
    def cache(self) -> int:
        """The memory for keys and values. Negative if weights and work space do not fit."""
        return int(self.cache_part * (self.budget - self.weights - self.work_space))

    @property
    def fits(self) -> bool:
        """Whether the engine can start."""
        return self.cache >= self.cache_needed

    def __str__(self) -> str:
        return (
            f"weights {self.weights / GIB:.1f} GiB, work space {self.work_space / GIB:.1f} GiB, "
            f"cache {self.cache / GIB:.1f} GiB of {self.budget / GIB:.1f} GiB on each GPU (estimated)"
        )


@dataclass(frozen=True)
class EnginePlan:
    """The options, environment and memory of an engine."""

    options: dict[str, Any]
    """The arguments of vLLM's `EngineArgs`."""
    environment: dict[str, str]
    """Environment variables that do not replace variables of the caller."""
    precision: dict[str, str]
    """Environment variables that replace variables of the caller, since the judge's identity promises this dtype."""
    own_process: bool
    """Whether the engine runs in a separate process."""
    memory: MemoryEstimate | None
    """The memory of each GPU. None on a CPU."""


def engine_plan(settings: ServiceSettings, sizes: ModelSizes, gpu: Gpu | None) -> EnginePlan:
    """Returns the plan of one replica's engine.

    Args:
        settings: The settings of the service.
        sizes: The sizes of the model.
        gpu: The GPU that each part of the replica gets. None for a CPU.
    """
    model = settings.model
    options: dict[str, Any] = {
        "model": model.name,
        "revision": model.revision,
        "dtype": model.dtype,
        "max_model_len": model.max_tokens + 1,
        "tensor_parallel_size": settings.tensor_parallel_size,
        "generation_config": "vllm",
        "enable_prefix_caching": True,
        "limit_mm_per_prompt": {"image": 1 + LONGEST_LIST, "video": 0},
        "disable_log_stats": True,
        "seed": 0,
    }
    if settings.engine.pipeline_parallel_size > 1:
        options["pipeline_parallel_size"] = settings.engine.pipeline_parallel_size
    if model.head_dtype == "float32":
        options["hf_overrides"] = {"head_dtype": "float32"}
    environment = {"VLLM_LOGGING_LEVEL": "WARNING", "VLLM_NO_USAGE_STATS": "1"}
    if gpu is None:
        plan = _on_cpu(settings, options, environment)
    else:
        plan = _on_gpu(settings, sizes, gpu, options, environment)

    # The arguments of the user come last. `argument_faults` has refused those that the service needs.
    arguments = settings.engine.arguments
    limits = {**plan.options["limit_mm_per_prompt"], **arguments.get("limit_mm_per_prompt", {})}
    plan.options.update(arguments | {"limit_mm_per_prompt": limits})
    return plan


def _on_cpu(
    settings: ServiceSettings, options: dict[str, Any], environment: dict[str, str]
) -> EnginePlan:
    own_process = bool(settings.engine.multiprocessing)
    environment |= {
        "TORCH_COMPILE_DISABLE": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_ENABLE_V1_MULTIPROCESSING": str(int(own_process)),
    }
    sequences = settings.model.max_num_seqs
    if settings.engine.max_num_batched_tokens is not None:
        options["max_num_batched_tokens"] = settings.engine.max_num_batched_tokens
        sequences = min(sequences, settings.engine.max_num_batched_tokens)
    options |= {"block_size": CPU_BLOCK_SIZE, "enforce_eager": True, "max_num_seqs": sequences}
    return EnginePlan(options, environment, {}, own_process, memory=None)


def _on_gpu(
    settings: ServiceSettings,
    sizes: ModelSizes,
    gpu: Gpu,
    options: dict[str, Any],
    environment: dict[str, str],
) -> EnginePlan:
    engine = settings.engine
    own_process = engine.multiprocessing is not False
    environment |= {
        "VLLM_ENABLE_V1_MULTIPROCESSING": str(int(own_process)),
        "VLLM_USE_FLASHINFER_SAMPLER": str(int(engine.sampler == "flashinfer")),
        # A process that is forked after CUDA was initialised cannot use CUDA.
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    }
    step_tokens, memory = step_tokens_of(settings, sizes, gpu)
    options |= {
        "gpu_memory_utilization": memory_share(settings),
        "max_num_batched_tokens": step_tokens,
        "max_num_seqs": min(settings.model.max_num_seqs, step_tokens),
        # All GPUs of a replica are on its machine. Inside Ray, vLLM would otherwise search the whole cluster for GPUs.
        "distributed_executor_backend": "mp" if settings.gpus_of_a_copy > 1 else None,
    }

    # vLLM would measure the free memory, and confuse its own use with that of a replica that starts at the same time.
    if memory.cache_part < 1 and memory.cache > 0:
        options["kv_cache_memory_bytes"] = memory.cache

    if engine.graphs == "off":
        options["enforce_eager"] = True
    else:
        options["compilation_config"] = {"cudagraph_mode": "PIECEWISE"}
    if attention := _attention(settings, gpu):
        options["attention_backend"] = attention
    precision = EXACT_FLOAT32 if settings.model.dtype == "float32" else {}
    return EnginePlan(options, environment, precision, own_process, memory)


def replicas_on_a_gpu(settings: ServiceSettings) -> int:
    """Returns the number of replicas that Ray places on one GPU."""
    if not 0 < settings.gpus_per_replica < 1:
        return 1
    return min(settings.replicas, int(1 / settings.gpus_per_replica))


def memory_share(settings: ServiceSettings) -> float:
    """Returns the share of a GPU's whole memory that one replica uses. vLLM ignores the share that Ray reserves."""
    if settings.engine.gpu_memory_utilization is not None:
        return settings.engine.gpu_memory_utilization
    return round(GPU_SHARE * min(1.0, settings.gpus_per_replica or 1.0), 4)


def memory_estimate(
    settings: ServiceSettings, sizes: ModelSizes, gpu: Gpu, step_tokens: int
) -> MemoryEstimate:
    """Estimates the memory of one GPU for steps of a given length.

    The work space is the sum of the tensors that exist at the same time:

        language model   T · (4 · width + 3 · feed-forward / P) · bytes     residual, gate, up and their product
        vision tower     T · numbers of a visual token · bytes              runs before the language model
        logits           S · vocabulary · 2 · 4                             logits and their log-probabilities

    T is the number of tokens of a step, S the number of sequences at once (at most T), P is tensor_parallel_size. Of
    the first two lines, only the larger counts.

    Args:
        settings: The settings of the service.
        sizes: The sizes of the model.
        gpu: A GPU of the replica.
        step_tokens: T.
    """
    parts = settings.tensor_parallel_size
    sizes = sizes.quantised(settings.engine.arguments.get("quantization"))
    number_bytes = _number_bytes(settings)
    sequences = min(settings.model.max_num_seqs, step_tokens)
    language = step_tokens * (4 * sizes.width + 3 * sizes.feed_forward // parts) * number_bytes
    vision = step_tokens * sizes.visual_token_numbers * number_bytes
    logits = 2 * sequences * sizes.vocabulary * FLOAT32_BYTES
    return MemoryEstimate(
        budget=int(gpu.memory_bytes * memory_share(settings)),
        weights=sizes.weight_bytes(number_bytes) // settings.gpus_of_a_copy,
        work_space=max(language, vision) + logits + LIBRARY_BYTES,
        cache_part=SHARED_CACHE_PART if replicas_on_a_gpu(settings) > 1 else 1.0,
        cache_needed=_whole_blocks(settings.model.max_tokens + 1)
        * _cached_token_bytes(settings, sizes),
    )


def step_tokens_of(
    settings: ServiceSettings, sizes: ModelSizes, gpu: Gpu
) -> tuple[int, MemoryEstimate]:
    """Returns the longest step that leaves enough memory for a cache of `CACHED_STEPS`, or else the shortest step."""
    if settings.engine.max_num_batched_tokens is not None:
        chosen = settings.engine.max_num_batched_tokens
        return chosen, memory_estimate(settings, sizes, gpu, chosen)
    lengths = STEP_TOKENS if gpu.memory_bytes >= LARGE_GPU_BYTES else STEP_TOKENS[1:]
    for step_tokens in lengths:
        memory = memory_estimate(settings, sizes, gpu, step_tokens)
        if memory.cache >= CACHED_STEPS * step_tokens * _cached_token_bytes(settings, sizes):
            break
    return step_tokens, memory


def _whole_blocks(tokens: int) -> int:
    """Returns the number of tokens in the blocks of a prompt and in the block that vLLM reserves."""
    return (-(-tokens // GPU_BLOCK_SIZE) + 1) * GPU_BLOCK_SIZE


def _cached_token_bytes(settings: ServiceSettings, sizes: ModelSizes) -> int:
    """Returns the bytes of the keys and values of one token on one GPU."""
    name = str(settings.engine.arguments.get("kv_cache_dtype", "auto"))
    number_bytes = 1 if name.startswith(EIGHT_BIT_CACHES) else _number_bytes(settings)
    split = min(settings.tensor_parallel_size, sizes.kv_heads)
    return (
        sizes.cached_token_numbers
        * number_bytes
        // (split * settings.engine.pipeline_parallel_size)
    )


def _number_bytes(settings: ServiceSettings) -> int:
    return FLOAT32_BYTES if settings.model.dtype == "float32" else 2


def _attention(settings: ServiceSettings, gpu: Gpu) -> str | None:
    """Returns the attention kernels to set. None leaves the choice to vLLM, which uses FLASH_ATTN where possible."""
    if settings.engine.attention != "auto":
        return settings.engine.attention
    blackwell = gpu.capability >= (10, 0)
    return "FLASH_ATTN" if blackwell and settings.model.dtype != "float32" else None
