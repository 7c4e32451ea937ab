"""Additional arguments of vLLM's engine: which are refused and why, which change the identity, and the estimates."""

import pytest
from pydantic import ValidationError

from judge_service.backends.engine_arguments import argument_faults, score_arguments
from judge_service.backends.engine_options import engine_plan, memory_estimate
from judge_service.backends.preflight import check_machine
from judge_service.settings import EngineSettings, ModelSettings, ServiceSettings
from tests.judge_service.gpus import gpu, settings, sizes
from unijudge.errors import SettingsError
from unijudge.judging.verdicts import JudgeIdentity
from unijudge.settings import load_settings, overrides_of

IDENTITY = {
    "model": "m", "weights": "w", "prompt_fingerprint": "p", "yes": "Yes", "no": "No", "yes_id": 1, "no_id": 2,
    "order": "query_first", "min_pixels": 1, "max_pixels": 2, "dtype": "float32", "head_dtype": "float32",
    "backend": "vllm", "backend_version": "1",
}  # fmt: skip


def faults(**arguments):
    return list(argument_faults(EngineSettings(**arguments)))


def with_engine(**engine):
    """The shipped settings of a judge on one GPU, with arguments in `[engine]`."""
    return settings(engine=EngineSettings(**engine))


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("max_model_len", 100, "another setting defines this argument. Set model.max_tokens"),
        ("enforce_eager", True, "another setting defines this argument. Set engine.graphs"),
        ("data_parallel_size", 2, "another setting defines this argument. Set replicas"),
        ("seed", 1, "cannot be set. A score needs the unmodified log-probabilities"),
        ("trust_remote_code", True, "cannot be set. It would run code"),
        ("enable_prefix_caching", False, "cannot be set. The candidates of a query share"),
        ("limit_mm_per_prompt", {"image": 1}, "image = 1, but a pair may have 2 images"),
        ("data_parallel_rank", 0, "another setting defines this argument. Set replicas"),
        ("limit_mm_per_prompt", {"image": {"count": 1}}, "image = 1, but a pair may have 2 images"),
    ],
)
def test_an_argument_that_the_service_needs_is_refused(name, value, words):
    (fault,) = faults(**{name: value})
    assert fault.startswith(f"engine.{name}: {words}")


def test_a_name_or_a_value_that_vllm_does_not_know_is_refused():
    pytest.importorskip("vllm")
    assert faults(quantisation="fp8") == [
        "engine.quantisation: neither this service nor vLLM has this setting. Did you mean quantization?"
    ]
    assert faults(graph="off")[0].endswith("Did you mean graphs?")
    assert faults(kv_cache_dtype="fp9")[0].startswith(
        "engine.kv_cache_dtype = 'fp9': Input should be 'auto', 'float16'"
    )
    (fault,) = faults(cpu_offload_gb="many")
    assert fault == (
        "engine.cpu_offload_gb = 'many': Input should be a valid number, unable to parse string as a number. Correct "
        "the value"
    )
    assert not faults(quantization="fp8", kv_cache_dtype="fp8", cpu_offload_gb=4, block_size=32)


def test_every_name_in_the_lists_is_an_argument_of_the_installed_vllm():
    pytest.importorskip("vllm")
    from vllm import AsyncEngineArgs

    from judge_service.backends.engine_arguments import DEFINED_BY, HARMLESS, REFUSED

    names = {*DEFINED_BY, *HARMLESS, *(name for group in REFUSED.values() for name in group)}
    assert names <= set(AsyncEngineArgs.__dataclass_fields__)
    assert not HARMLESS & ({*DEFINED_BY} | {name for group in REFUSED.values() for name in group})


def test_a_service_with_a_wrong_argument_does_not_start():
    """The scripted judge has no engine. The error comes before Ray starts."""
    scripted = ServiceSettings(
        model=ModelSettings(backend="scripted"), engine=EngineSettings(swap=1)
    )
    with pytest.raises(SettingsError, match=r"engine\.swap: is an argument of vLLM, and model\.b"):
        check_machine(scripted)
    on_a_cluster = ServiceSettings(
        address="auto", model=ModelSettings(backend="vllm"), engine=EngineSettings(seed=1)
    )
    with pytest.raises(SettingsError, match=r"engine\.seed: cannot be set"):
        check_machine(on_a_cluster)


def test_arguments_that_may_change_scores_belong_to_the_identity():
    """Memory and scheduling change no score. A judge without such arguments keeps the digest of older versions."""
    assert (
        score_arguments(EngineSettings(cpu_offload_gb=2, limit_mm_per_prompt={"image": 2}))
        == "none"
    )
    arguments = score_arguments(EngineSettings(quantization="fp8", kv_cache_dtype="fp8"))
    assert arguments == '{"kv_cache_dtype": "fp8", "quantization": "fp8"}'
    plain = JudgeIdentity(**IDENTITY)
    assert plain.digest != JudgeIdentity(**IDENTITY, engine=arguments).digest
    assert "engine" not in plain.model_dump_json()


@pytest.mark.parametrize(
    "loading",
    [
        {"load_format": "dummy"},
        {"ignore_patterns": ["model-00002*"]},
        {"model_loader_extra_config": {"pattern": "other-*.safetensors"}},
    ],
)
def test_another_way_of_loading_weights_makes_another_judge(loading):
    """vLLM's load format `dummy` gives random weights: their scores must not count as those of the model."""
    assert score_arguments(EngineSettings(**loading)) != "none"


def test_arguments_reach_the_engine_and_survive_the_command_line():
    chosen = with_engine(cpu_offload_gb=2, limit_mm_per_prompt={"image": 2}, quantization="fp8")
    options = engine_plan(chosen, sizes("7B"), gpu("H100 80")).options
    assert (options["cpu_offload_gb"], options["quantization"]) == (2, "fp8")
    assert options["limit_mm_per_prompt"] == {"image": 2, "video": 0}
    again = load_settings(ServiceSettings, None, overrides_of(chosen))
    assert again.engine.arguments == chosen.engine.arguments


def test_the_estimate_follows_quantised_weights_and_cache():
    """fp8 halves the bytes of packed weights and of cached keys and values, compared with bfloat16."""
    on = (sizes("7B"), gpu("L4"), 8192)
    plain = memory_estimate(with_engine(), *on)
    packed = memory_estimate(with_engine(quantization="fp8", kv_cache_dtype="fp8"), *on)
    assert plain.weights - packed.weights == sizes("7B").layer_weights
    assert packed.cache_needed == plain.cache_needed // 2
    already = memory_estimate(with_engine(quantization="awq"), sizes("7B AWQ"), *on[1:])
    assert already.weights == sizes("7B AWQ").weight_bytes(2)


def test_pipeline_parallel_replicas_have_all_their_gpus():
    """Four GPUs hold a quarter of the weights each, in two parts of the layers and two parts of the heads."""
    with pytest.raises(ValidationError, match="Set gpus_per_replica = 4"):
        ServiceSettings(
            tensor_parallel_size=2,
            gpus_per_replica=2,
            engine=EngineSettings(pipeline_parallel_size=2),
        )
    split = settings(
        tensor_parallel_size=2,
        gpus_per_replica=4,
        engine=EngineSettings(pipeline_parallel_size=2),
    )
    plan = engine_plan(split, sizes("72B"), gpu("H100 80"))
    assert plan.options["pipeline_parallel_size"] == 2
    assert plan.options["distributed_executor_backend"] == "mp"
    assert plan.memory.weights == sizes("72B").weight_bytes(2) // 4


def test_a_limit_of_images_that_is_no_table_is_refused():
    (fault, *_) = faults(limit_mm_per_prompt=5)
    assert fault.startswith("engine.limit_mm_per_prompt = 5: is not a table. Set it to a table")
