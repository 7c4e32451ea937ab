"""How vLLM is started: settings, a model's size and a GPU → the engine's options, its environment, and whether it fits.

Pure functions. They start nothing and ask no GPU, so each kind of GPU can be tested on a machine without one. Why each
option has its value stands in docs/gpu.md.
"""

from dataclasses import dataclass
from typing import Any

from judge_service.backends.model_sizes import ModelSizes
from judge_service.gpus import GIB, Gpu
from judge_service.settings import ServiceSettings
from unijudge.judging.prompt import LONGEST_LIST

GPU_SHARE = 0.92
"""Of a GPU's memory, vLLM's own default."""
STEP_TOKENS = (16384, 8192, 4096, 2048)
"""How many tokens a step may have. The largest is for GPUs of `LARGE_GPU_BYTES` only."""
LARGE_GPU_BYTES = 140 * 10**9
CACHED_STEPS = 4
"""How many steps' tokens the cache should hold: the step in work, the next one, and the prefixes that they share."""
LIBRARY_BYTES = GIB // 2
"""What CUDA's libraries and the allocator take beside the tensors."""
FLOAT32_BYTES = 4
EXACT_FLOAT32 = {"TRITON_F32_DEFAULT": "ieee", "VLLM_FLOAT32_MATMUL_PRECISION": "highest"}
"""Without them Triton's products, those of attention in float32, round their factors to the ten bits of TF32."""
GPU_BLOCK_SIZE = 16
"""Tokens in a cache block on a GPU, vLLM's own choice."""
SHARED_CACHE_PART = 0.9
"""Of the cache by estimate, where replicas share a GPU: the rest is for what the estimate does not see."""
CPU_BLOCK_SIZE = 32
"""Tokens in a cache block: CPU attention wants a multiple of 32, and the default of 128 would hide short prefixes."""


@dataclass(frozen=True)
class MemoryEstimate:
    """What one GPU of a replica holds, in bytes. An estimate by arithmetic, nothing is measured."""

    budget: int
    """What the engine may take."""
    weights: int
    work_space: int
    """For one step: hidden states, those of the vision tower, logits, and what CUDA's libraries take."""
    cache_needed: int
    """For one prompt of `model.max_tokens`."""
    cache_part: float
    """Of what is left, the part that becomes the cache."""

    @property
    def cache(self) -> int:
        """For keys and values; negative where weights and work space do not fit."""
        return int(self.cache_part * (self.budget - self.weights - self.work_space))

    @property
    def fits(self) -> bool:
        """Whether the engine can start."""
        return self.cache >= self.cache_needed

    def __str__(self) -> str:
        return (
            f"weights {self.weights / GIB:.1f} GiB, work space {self.work_space / GIB:.1f} GiB, "
            f"cache {self.cache / GIB:.1f} GiB of {self.budget / GIB:.1f} GiB on each GPU, by estimate"
        )


@dataclass(frozen=True)
class EnginePlan:
    """How an engine is started."""

    options: dict[str, Any]
    """Of vLLM's `EngineArgs`."""
    environment: dict[str, str]
    """Variables that are set where the caller has not set them."""
    precision: dict[str, str]
    """Variables that are set whatever the caller has set: the judge's identity promises this dtype."""
    own_process: bool
    """Whether the engine runs in a process of its own."""
    memory: MemoryEstimate | None
    """On a GPU."""


def engine_plan(settings: ServiceSettings, sizes: ModelSizes, gpu: Gpu | None) -> EnginePlan:
    """The engine of one replica.

    Args:
        settings: Of the service.
        sizes: Of the model.
        gpu: The GPU that each part of the replica gets; None for a CPU.
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
    if model.head_dtype == "float32":
        options["hf_overrides"] = {"head_dtype": "float32"}
    environment = {"VLLM_LOGGING_LEVEL": "WARNING", "VLLM_NO_USAGE_STATS": "1"}
    if gpu is None:
        return _on_cpu(settings, options, environment)
    return _on_gpu(settings, sizes, gpu, options, environment)


def _on_cpu(settings: ServiceSettings, options: dict[str, Any], environment: dict[str, str]) -> EnginePlan:
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
    settings: ServiceSettings, sizes: ModelSizes, gpu: Gpu, options: dict[str, Any], environment: dict[str, str]
) -> EnginePlan:
    engine = settings.engine
    own_process = engine.multiprocessing is not False
    environment |= {
        "VLLM_ENABLE_V1_MULTIPROCESSING": str(int(own_process)),
        "VLLM_USE_FLASHINFER_SAMPLER": str(int(engine.sampler == "flashinfer")),
        # A fork after CUDA was touched would break the engine's process.
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    }
    step_tokens, memory = step_tokens_of(settings, sizes, gpu)
    options |= {
        "gpu_memory_utilization": memory_share(settings),
        "max_num_batched_tokens": step_tokens,
        "max_num_seqs": min(settings.model.max_num_seqs, step_tokens),
        # A replica's GPUs are on its machine: vLLM would otherwise look for places of its own in the cluster.
        "distributed_executor_backend": "mp" if settings.tensor_parallel_size > 1 else None,
    }
    if memory.cache_part < 1 and memory.cache > 0:
        # vLLM would measure what is left, and count a neighbour that starts at the same time as its own.
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
    """How many replicas Ray puts on one GPU."""
    if not 0 < settings.gpus_per_replica < 1:
        return 1
    return min(settings.replicas, int(1 / settings.gpus_per_replica))


def memory_share(settings: ServiceSettings) -> float:
    """The share of a whole GPU that one replica takes: vLLM counts from the whole, however little Ray reserves."""
    if settings.engine.gpu_memory_utilization is not None:
        return settings.engine.gpu_memory_utilization
    return round(GPU_SHARE * min(1.0, settings.gpus_per_replica or 1.0), 4)


def memory_estimate(settings: ServiceSettings, sizes: ModelSizes, gpu: Gpu, step_tokens: int) -> MemoryEstimate:
    """What one GPU holds for steps of a given length.

    Work space, of tensors that live at the same time:

        language model   T · (4 · width + 3 · feed-forward / P) · bytes     residual, gate, up and their product
        vision tower     T · numbers of a visual token · bytes              runs before the language model
        logits           S · vocabulary · 2 · 4                             logits and their log-probabilities

    T tokens of a step, S sequences at once (at most T), P GPUs of a replica. The larger of the first two counts.

    Args:
        settings: Of the service.
        sizes: Of the model.
        gpu: One of the replica's.
        step_tokens: T.
    """
    parts = settings.tensor_parallel_size
    number_bytes = _number_bytes(settings)
    sequences = min(settings.model.max_num_seqs, step_tokens)
    language = step_tokens * (4 * sizes.width + 3 * sizes.feed_forward // parts) * number_bytes
    vision = step_tokens * sizes.visual_token_numbers * number_bytes
    logits = 2 * sequences * sizes.vocabulary * FLOAT32_BYTES
    return MemoryEstimate(
        budget=int(gpu.memory_bytes * memory_share(settings)),
        weights=sizes.weight_bytes(number_bytes) // parts,
        work_space=max(language, vision) + logits + LIBRARY_BYTES,
        cache_part=SHARED_CACHE_PART if replicas_on_a_gpu(settings) > 1 else 1.0,
        cache_needed=_whole_blocks(settings.model.max_tokens + 1) * _cached_token_bytes(settings, sizes),
    )


def step_tokens_of(settings: ServiceSettings, sizes: ModelSizes, gpu: Gpu) -> tuple[int, MemoryEstimate]:
    """The longest step that leaves a cache of `CACHED_STEPS`; else the shortest one."""
    if settings.engine.max_num_batched_tokens is not None:
        chosen = settings.engine.max_num_batched_tokens
        return chosen, memory_estimate(settings, sizes, gpu, chosen)
    longest = STEP_TOKENS if gpu.memory_bytes >= LARGE_GPU_BYTES else STEP_TOKENS[1:]
    for step_tokens in longest:
        memory = memory_estimate(settings, sizes, gpu, step_tokens)
        if memory.cache >= CACHED_STEPS * step_tokens * _cached_token_bytes(settings, sizes):
            break
    return step_tokens, memory


def _whole_blocks(tokens: int) -> int:
    """The tokens of the blocks that hold a prompt, and of the one that vLLM keeps for itself."""
    return (-(-tokens // GPU_BLOCK_SIZE) + 1) * GPU_BLOCK_SIZE


def _cached_token_bytes(settings: ServiceSettings, sizes: ModelSizes) -> int:
    return sizes.cached_token_numbers * _number_bytes(settings) // min(settings.tensor_parallel_size, sizes.kv_heads)


def _number_bytes(settings: ServiceSettings) -> int:
    return FLOAT32_BYTES if settings.model.dtype == "float32" else 2


def _attention(settings: ServiceSettings, gpu: Gpu) -> str | None:
    """The attention kernels to name; None leaves the choice to vLLM, which takes FLASH_ATTN where it runs."""
    if settings.engine.attention != "auto":
        return settings.engine.attention
    blackwell = gpu.capability >= (10, 0)
    return "FLASH_ATTN" if blackwell and settings.model.dtype != "float32" else None
