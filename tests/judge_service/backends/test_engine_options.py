"""The engine's options for GPUs that this machine does not have: the chosen values, and whether the model fits."""

import json
import os
from unittest import mock

import pytest
from pydantic import ValidationError
from transformers import AutoModelForImageTextToText

from judge_service import backends
from judge_service.backends import open_judge
from judge_service.backends.engine_options import engine_plan, memory_share, step_tokens_of
from judge_service.backends.model_sizes import load_sizes, sizes_of
from judge_service.gpus import GIB
from judge_service.settings import ModelSettings, ServiceSettings
from tests.families import MAKERS
from tests.judge_service.gpus import CHIPS, QWEN25_VL, config, gpu, settings, sizes
from unijudge.errors import ModelError

# The number of parameters in the metadata of each published checkpoint.
PUBLISHED = {"3B": 3_754_622_976, "7B": 8_292_166_656, "32B": 33_452_718_336, "72B": 73_410_777_344}

# For each model and GPU: the tokens of a step, and the number of GPUs of a replica.
CHOICES = {
    "3B": {"A100 80": (8192, 1), "H100 80": (8192, 1), "H200": (16384, 1), "L4": (8192, 1), "A10G": (8192, 1),
           "RTX 4090": (8192, 1), "B200": (16384, 1)},
    "7B": {"A100 80": (8192, 1), "H100 80": (8192, 1), "H200": (16384, 1), "L4": (8192, 1), "A10G": (8192, 1),
           "RTX 4090": (8192, 1), "B200": (16384, 1)},
    "7B AWQ": {"A100 80": (8192, 1), "H100 80": (8192, 1), "H200": (16384, 1), "L4": (8192, 1), "A10G": (8192, 1),
               "RTX 4090": (8192, 1), "B200": (16384, 1)},
    "32B": {"A100 80": (8192, 1), "H100 80": (8192, 1), "H200": (16384, 1), "L4": (2048, 4), "A10G": (2048, 4),
            "RTX 4090": (2048, 4), "B200": (16384, 1)},
    "72B": {"A100 80": (2048, 2), "H100 80": (2048, 2), "H200": (2048, 2), "L4": (2048, 8), "A10G": (2048, 8),
            "RTX 4090": (2048, 8), "B200": (16384, 1)},
    "72B AWQ": {"A100 80": (8192, 1), "H100 80": (8192, 1), "H200": (16384, 1), "L4": (2048, 4), "A10G": (2048, 4),
                "RTX 4090": (2048, 4), "B200": (16384, 1)},
}  # fmt: skip


@pytest.mark.parametrize("size", QWEN25_VL)
def test_the_size_of_a_model_is_the_published_one(size):
    found = sizes(size)
    assert found.layer_weights + found.other_weights == PUBLISHED[size]
    assert found.weight_bytes(2) == 2 * PUBLISHED[size]


def test_packed_weights_need_the_bytes_of_their_file():
    """The published files of Qwen2.5-VL-7B-Instruct-AWQ have 6.93 GB."""
    assert sizes("7B AWQ").weight_bytes(2) == pytest.approx(6.93e9, rel=0.005)
    assert sizes("7B AWQ").quantisation == "awq"


@pytest.mark.parametrize(
    ("packed", "method", "bits"),
    [
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, "awq", 4 + 20 / 128),
        ({"quant_method": "gptq", "bits": 8}, "gptq", 8 + 20 / 128),
        ({"quant_method": "fp8", "activation_scheme": "dynamic"}, "fp8", 8),
        (
            {"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": {"num_bits": 4}}}},
            "compressed-tensors", 4,
        ),
        (
            {"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": {"num_bits": 8}}}},
            "compressed-tensors", 8,
        ),
        ({"quant_method": "modelopt", "quant_algo": "FP8"}, "modelopt", 8),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "modelopt", 4),
        ({"quant_method": "something new"}, "something new", 4),
    ],
)  # fmt: skip
def test_packed_weights_in_the_published_configurations(packed, method, bits):
    """For an unknown method, the estimate assumes the fewest bits, so that a model that fits is not refused."""
    packed_config = config("3B")
    packed_config.quantization_config = packed
    found = sizes_of(packed_config)
    assert (found.quantisation, found.packed_bits) == (method, bits)


def test_an_invalid_configuration_is_named(tmp_path):
    for fault in ({"hidden_size": None}, {"num_attention_heads": 0}, {"hidden_act": "foo"}):
        made = json.loads(config("3B").to_json_string())
        made["text_config"] |= fault
        (tmp_path / "config.json").write_text(json.dumps(made))
        with pytest.raises(ModelError, match="the configuration of the model cannot be used"):
            load_sizes(str(tmp_path), None)


@pytest.mark.parametrize("family", MAKERS)
def test_every_family_has_sizes(family, tmp_path):
    MAKERS[family](tmp_path / family)
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / family)
    found = sizes_of(model.config)
    assert found.layer_weights + found.other_weights == sum(
        one.numel() for one in model.parameters()
    )
    keys = model.model.language_model.layers[0].self_attn.k_proj.weight
    assert found.cached_token_numbers == 2 * len(model.model.language_model.layers) * keys.shape[0]


@pytest.mark.parametrize(
    ("size", "chip"), [(size, chip) for size, row in CHOICES.items() for chip in row]
)
def test_the_chosen_engine_options(size, chip):
    step_tokens, gpus_needed = CHOICES[size][chip]
    found, memory = step_tokens_of(settings(), sizes(size), gpu(chip))
    assert found == step_tokens
    assert memory.fits == (gpus_needed == 1)
    for parts in (1, 2, 4, 8):
        split = settings(gpus_per_replica=parts, tensor_parallel_size=parts)
        possible = (
            sizes(size).heads % parts == 0 and step_tokens_of(split, sizes(size), gpu(chip))[1].fits
        )
        assert not possible or parts >= gpus_needed
        if parts == gpus_needed:
            assert possible


def test_the_estimate_equals_a_sum_by_hand():
    """The case is Qwen2.5-VL-7B on an L4 with bfloat16, 8,192 tokens in a step, and 256 sequences."""
    _, memory = step_tokens_of(settings(), sizes("7B"), gpu("L4"))
    assert memory.budget == int(int(22.03 * GIB) * 0.92)
    assert memory.weights == 2 * PUBLISHED["7B"]
    language = 8192 * (4 * 3584 + 3 * 18944) * 2
    vision = 8192 * 4 * (6 * 1280 + 3 * 3420) * 2
    assert vision > language
    assert memory.work_space == vision + 2 * 256 * 152064 * 4 + GIB // 2
    assert (
        memory.cache_needed == (513 + 1) * 16 * 28 * 2 * 4 * 128 * 2
    )  # whole blocks of 16 tokens, and one more block
    assert memory.cache == memory.budget - memory.weights - memory.work_space


def test_options_on_a_hopper():
    plan = engine_plan(settings(), sizes("7B"), gpu("H100 80"))
    assert plan.options == {
        "model": "the-model",
        "revision": None,
        "dtype": "bfloat16",
        "max_model_len": 8193,
        "max_num_batched_tokens": 8192,
        "max_num_seqs": 256,
        "tensor_parallel_size": 1,
        "distributed_executor_backend": None,
        "gpu_memory_utilization": 0.92,
        "enforce_eager": True,
        "generation_config": "vllm",
        "enable_prefix_caching": True,
        "limit_mm_per_prompt": {"image": 10, "video": 0},
        "hf_overrides": {"head_dtype": "float32"},
        "disable_log_stats": True,
        "seed": 0,
    }
    assert plan.environment == {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_USE_FLASHINFER_SAMPLER": "0",
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    }
    assert plan.own_process


def test_settings_reach_the_engine():
    engine = {
        "gpu_memory_utilization": 0.5, "max_num_batched_tokens": 4096, "graphs": "piecewise",
        "attention": "TRITON_ATTN",
        "sampler": "flashinfer", "multiprocessing": False,
    }  # fmt: skip
    chosen = settings(engine=engine, model={"head_dtype": "model", "max_num_seqs": 9000})
    plan = engine_plan(chosen, sizes("7B"), gpu("A100 80"))
    assert plan.options["gpu_memory_utilization"] == 0.5
    assert plan.options["max_num_batched_tokens"] == plan.options["max_num_seqs"] == 4096
    assert plan.options["compilation_config"] == {"cudagraph_mode": "PIECEWISE"}
    assert plan.options["attention_backend"] == "TRITON_ATTN"
    assert not {"enforce_eager", "hf_overrides"} & set(plan.options)
    assert plan.environment["VLLM_USE_FLASHINFER_SAMPLER"] == "1"
    assert plan.environment["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
    assert not plan.own_process


@pytest.mark.parametrize(
    ("chip", "dtype", "attention"),
    [
        ("B200", "bfloat16", "FLASH_ATTN"),
        ("B200", "float32", None),
        ("H200", "bfloat16", None),
        ("L4", "float16", None),
    ],
)
def test_attention_kernels_that_need_no_compiler(chip, dtype, attention):
    plan = engine_plan(settings(model={"dtype": dtype}), sizes("3B"), gpu(chip))
    assert plan.options.get("attention_backend") == attention


def test_float32_products_on_a_gpu_do_not_use_tf32():
    """Without this setting, Triton and torch would round factors to TF32."""
    exact = {"TRITON_F32_DEFAULT": "ieee", "VLLM_FLOAT32_MATMUL_PRECISION": "highest"}
    for dtype, wanted in [("float32", exact), ("bfloat16", {}), ("float16", {})]:
        assert (
            engine_plan(settings(model={"dtype": dtype}), sizes("3B"), gpu("H100 80")).precision
            == wanted
        )
    assert engine_plan(settings(model={"dtype": "float32"}), sizes("3B"), None).precision == {}


def test_an_environment_variable_cannot_enable_tf32(tiny_model, monkeypatch):
    """The engine overwrites the variables of this process before it starts its own process."""
    pytest.importorskip("vllm")
    seen = {}

    def started(*_):
        seen.update(os.environ)
        raise ModelError("no engine here")

    monkeypatch.setattr(backends, "current_gpu", lambda **_: gpu("H100 80"))
    monkeypatch.setattr("judge_service.backends.vllm._started", started)
    monkeypatch.setattr("judge_service.backends.vllm.check_engine", lambda *_: None)
    model = ModelSettings(name=str(tiny_model), backend="vllm", dtype="float32")
    shell = {
        "TRITON_F32_DEFAULT": "tf32",
        "VLLM_FLOAT32_MATMUL_PRECISION": "medium",
        "VLLM_LOGGING_LEVEL": "ERROR",
    }
    with mock.patch.dict(os.environ, shell), pytest.raises(ModelError, match="no engine here"):
        open_judge(ServiceSettings(gpus_per_replica=1, model=model))
    assert (seen["TRITON_F32_DEFAULT"], seen["VLLM_FLOAT32_MATMUL_PRECISION"]) == (
        "ieee",
        "highest",
    )
    assert seen["VLLM_LOGGING_LEVEL"] == "ERROR", "the caller's"


@pytest.mark.parametrize(
    ("gpus_per_replica", "share"), [(1, 0.92), (0.5, 0.46), (0.25, 0.23), (4, 0.92)]
)
def test_a_part_of_a_gpu_is_a_part_of_its_memory(gpus_per_replica, share):
    chosen = settings(gpus_per_replica=gpus_per_replica, replicas=4)
    assert memory_share(chosen) == share
    plan = engine_plan(chosen, sizes("3B"), gpu("H100 80"))
    if gpus_per_replica < 1:
        left = plan.memory.budget - plan.memory.weights - plan.memory.work_space
        assert plan.options["kv_cache_memory_bytes"] == plan.memory.cache == int(0.9 * left)
    else:
        assert "kv_cache_memory_bytes" not in plan.options


def test_more_than_one_gpu_must_be_a_whole_number():
    with pytest.raises(
        ValidationError, match=r"1\.5 GPUs: Ray gives a replica a share of one GPU, or whole GPUs"
    ):
        settings(gpus_per_replica=1.5)


def test_several_gpus_hold_parts():
    one = step_tokens_of(settings(), sizes("72B"), gpu("H200"))[1]
    split = settings(gpus_per_replica=8, tensor_parallel_size=8)
    plan = engine_plan(split, sizes("72B"), gpu("H200"))
    assert plan.options["distributed_executor_backend"] == "mp"
    assert plan.memory.weights == one.weights // 8
    # Eight GPUs hold one of the eight heads of keys and values each. Sixteen GPUs would hold copies of heads.
    assert plan.memory.cache_needed == pytest.approx(one.cache_needed / 8, abs=1)


def test_options_on_a_cpu():
    plan = engine_plan(settings(gpus_per_replica=0), sizes("3B"), None)
    assert (plan.options["block_size"], plan.options["enforce_eager"], plan.own_process) == (
        32,
        True,
        False,
    )
    assert plan.environment["VLLM_CPU_KVCACHE_SPACE"] == "1"
    assert not {"gpu_memory_utilization", "attention_backend"} & set(plan.options)
    assert plan.memory is None
    alone = engine_plan(
        settings(gpus_per_replica=0, engine={"multiprocessing": True}), sizes("3B"), None
    )
    assert alone.own_process
    assert alone.environment["VLLM_ENABLE_V1_MULTIPROCESSING"] == "1"


def test_vllm_knows_every_option():
    """If a new version of vLLM dropped a name, the engine would raise a TypeError, and a GPU machine would be the first
    to show it.
    """
    arguments = pytest.importorskip("vllm").AsyncEngineArgs
    every = settings(engine={"attention": "FLASH_ATTN", "graphs": "piecewise"})
    eager = engine_plan(settings(), sizes("3B"), gpu("B200")).options
    for options in (engine_plan(every, sizes("3B"), gpu("L4")).options, eager):
        made = arguments(**options | {"model": "a-folder"})
        assert {name: getattr(made, name) for name in ("dtype", "max_num_batched_tokens", "hf_overrides")} == {
            "dtype": "bfloat16", "max_num_batched_tokens": options["max_num_batched_tokens"],
            "hf_overrides": {"head_dtype": "float32"},
        }  # fmt: skip


def test_all_kinds_of_gpus_are_in_the_table():
    assert set(CHIPS) - {"T4", "V100"} == set.intersection(*(set(row) for row in CHOICES.values()))
    assert {size.split()[0] for size in CHOICES} == set(QWEN25_VL)
    assert config("7B AWQ").quantization_config["quant_method"] == "awq"
