"""Checks the arguments of vLLM's engine in `[engine]` that the service does not define itself.

Every argument of vLLM's engine is allowed, except those that another setting defines, and those on which scoring
depends. An argument that is not in `HARMLESS` counts as changing scores, and belongs to the judge's identity.
"""

import difflib
import importlib.util
import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import PydanticUserError, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError

from judge_service.settings import EngineSettings
from unijudge.shown import shown, shown_name

DEFINED_BY = {
    "attention_backend": "engine.attention",
    "attention_config": "engine.attention",
    "compilation_config": "engine.graphs",
    "cudagraph_capture_sizes": "engine.graphs",
    "data_parallel_size": "replicas",
    "data_parallel_rank": "replicas",
    "data_parallel_size_local": "replicas",
    "dtype": "model.dtype",
    "enforce_eager": "engine.graphs",
    "hf_overrides": "model.head_dtype",
    "max_cudagraph_capture_size": "engine.graphs",
    "max_model_len": "model.max_tokens",
    "max_num_seqs": "model.max_num_seqs",
    "mm_processor_kwargs": "model.min_pixels and model.max_pixels",
    "model": "model.name",
    "optimization_level": "engine.graphs",
    "revision": "model.revision",
    "tensor_parallel_size": "tensor_parallel_size",
}
"""Argument → the setting that defines it."""

REFUSED = {
    "The service makes the tokens itself": (
        "enable_prompt_embeds",
        "skip_tokenizer_init",
        "tokenizer",
        "tokenizer_mode",
        "tokenizer_revision",
        "tokens_only",
    ),
    "A score needs the unmodified log-probabilities of the first token": (
        "generation_config",
        "logits_processors",
        "logprobs_mode",
        "max_logprobs",
        "override_generation_config",
        "seed",
        "spec_method",
        "spec_model",
        "spec_tokens",
        "speculative_config",
        "watermark_config",
    ),
    "A judge generates text from pictures and text": (
        "convert",
        "language_model_only",
        "mm_encoder_only",
        "pooler_config",
        "runner",
    ),
    "The candidates of a query share their prefix": ("enable_prefix_caching",),
    "It would run code that is not a part of this service": (
        "code_revision",
        "io_processor_plugin",
        "reasoning_parser_plugin",
        "scheduler_cls",
        "trust_remote_code",
        "worker_cls",
        "worker_extension_cls",
    ),
    "A client must not choose files, addresses or features of pictures": (
        "allowed_local_media_path",
        "allowed_media_domains",
        "enable_mm_embeds",
    ),
    "Ray starts the replicas and assigns their GPUs": (
        "device_ids",
        "distributed_executor_backend",
        "nnodes",
        "node_rank",
    ),
    "The judge's identity names the model": (
        "config_format",
        "hf_config_path",
        "model_weights",
        "served_model_name",
    ),
    "Settings are no place for secrets. Set the variable HF_TOKEN": ("hf_token",),
}
"""The reason → arguments that nobody can set."""
_REASON_OF = {name: reason for reason, names in REFUSED.items() for name in names}

HARMLESS = frozenset(
    {
        "aggregate_engine_logging", "async_scheduling", "block_size", "collect_detailed_traces", "cpu_offload_gb",
        "cpu_offload_params", "cudagraph_metrics", "disable_chunked_mm_input", "disable_log_stats",
        "distributed_timeout_seconds", "download_dir", "enable_chunked_prefill", "enable_log_requests",
        "enable_logging_iteration_details", "enable_mfu_metrics", "enable_mm_processor_stats",
        "kv_cache_memory_bytes", "kv_cache_metrics", "kv_cache_metrics_sample", "kv_offloading_backend",
        "kv_offloading_size", "limit_mm_per_prompt", "log_config_file", "log_level", "logging_config",
        "long_prefill_token_threshold", "master_addr", "master_port", "max_num_scheduled_tokens",
        "max_parallel_loading_workers", "mm_hasher_algorithm", "mm_ipc_gpu_memory_gb", "mm_processor_cache_gb",
        "mm_processor_cache_type", "mm_shm_cache_max_object_size_mb", "mm_tensor_ipc",
        "num_gpu_blocks_override", "numa_bind", "numa_bind_cpus", "numa_bind_nodes", "offload_backend",
        "offload_group_size", "offload_num_in_group", "offload_params", "offload_prefetch_step",
        "otlp_traces_endpoint", "prefix_caching_hash_algo", "renderer_num_workers", "safetensors_load_strategy",
        "scheduler_reserve_full_isl", "scheduling_policy", "show_hidden_metrics_for_version", "shutdown_timeout",
        "skip_mm_profiling", "stream_interval", "use_tqdm_on_load", "watermark",
    }
)  # fmt: skip
"""Arguments about memory, scheduling and logging, which change no score.

The arguments that choose how weights are loaded are not in this list: `load_format = "dummy"` gives random weights.
"""

PAIR_IMAGES = 2
"""The largest number of images in a pair."""


def argument_faults(engine: EngineSettings) -> Iterator[str]:
    """Yields the faults of the additional arguments.

    Without vLLM on this machine, names and values that only vLLM knows are checked when a replica starts.
    """
    arguments = engine.arguments
    unknown = []
    for name in arguments:
        if name in DEFINED_BY:
            yield f"engine.{name}: another setting defines this argument. Set {DEFINED_BY[name]}"
        elif name in _REASON_OF:
            yield f"engine.{name}: cannot be set. {_REASON_OF[name]}. Remove this setting"
        else:
            unknown.append(name)
    yield from _limit_faults(arguments.get("limit_mm_per_prompt"))
    if unknown and importlib.util.find_spec("vllm") is not None:
        yield from _engine_faults({name: arguments[name] for name in unknown})


def score_arguments(engine: EngineSettings) -> str:
    """Returns the arguments that may change scores, as JSON for the judge's identity, or `none`.

    Example:
        >>> score_arguments(EngineSettings(quantization="fp8", cpu_offload_gb=4))
        '{"quantization": "fp8"}'
        >>> score_arguments(EngineSettings(cpu_offload_gb=4))
        'none'
    """
    chosen = {name: value for name, value in engine.arguments.items() if name not in HARMLESS}
    return json.dumps(chosen, sort_keys=True, default=str) if chosen else "none"


def _limit_faults(limits: Any) -> Iterator[str]:
    if limits is None:
        return
    if not isinstance(limits, dict):
        yield (
            f"engine.limit_mm_per_prompt = {shown(limits)}: is not a table. Set it to a table, such as "
            f"{{ image = {PAIR_IMAGES} }}"
        )
        return
    images = limits.get("image", PAIR_IMAGES)
    # vLLM also accepts a table with the number and the size of the images.
    if isinstance(images, dict):
        images = images.get("count", PAIR_IMAGES)
    if isinstance(images, int) and images < PAIR_IMAGES:
        yield (
            f"engine.limit_mm_per_prompt: image = {images}, but a pair may have {PAIR_IMAGES} images. Set image to "
            f"{PAIR_IMAGES} or more"
        )


def _engine_faults(arguments: Mapping[str, Any]) -> Iterator[str]:
    """Yields names that vLLM does not know, and values of a wrong type."""
    from dataclasses import fields

    from vllm.engine import arg_utils

    hints = {field.name: field.type for field in fields(arg_utils.AsyncEngineArgs)}
    for name, value in arguments.items():
        if name not in hints:
            known = [*EngineSettings.model_fields, *hints]
            near = difflib.get_close_matches(name, known, n=1)
            cure = f"Did you mean {near[0]}?" if near else "See the arguments of `vllm serve`"
            yield f"engine.{shown_name(name)}: neither this service nor vLLM has this setting. {cure}"
        elif reason := _wrong_type(hints[name], value, vars(arg_utils)):
            yield f"engine.{name} = {shown(value)}: {reason}. Correct the value"


def _wrong_type(hint: Any, value: Any, names: dict[str, Any]) -> str | None:
    """Returns why vLLM's engine would reject a value, or None. Names are those of vLLM's module."""
    if isinstance(hint, str):
        try:
            hint = eval(hint, names)  # noqa: S307  vLLM's own annotation
        except NameError:  # the name exists only for type checkers
            return None
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(hint)
    except (PydanticSchemaGenerationError, PydanticUserError):  # only the engine can check it
        return None
    try:
        adapter.validate_python(value)
    except ValidationError as error:
        message: str = error.errors()[0]["msg"]
        return message
    return None
