"""The loading of a model: the chosen attention, and the layers with four-bit weights, for every family."""

import pytest
import torch
import transformers
from torch import nn
from transformers.quantizers.base import HfQuantizer
from transformers.quantizers.quantizers_utils import should_convert_module

from tests.families import MAKERS
from trainer.models.backbone import open_backbone
from trainer.models.pretrained import attention_of, device_of, four_bits
from unijudge.errors import ModelError

FLASH = {"": "sdpa", "text_config": "sdpa", "vision_config": "flash_attention_2"}
HOPPER, TURING = (9, 0), (7, 5)
FLASH_ATTN, KERNELS, NOTHING = frozenset({"flash_attn"}), frozenset({"kernels"}), frozenset()


@pytest.mark.parametrize(("wanted", "kind", "dtype", "capability", "packages", "expected"), [
    ("auto", "qwen2_vl", "bfloat16", HOPPER, FLASH_ATTN, FLASH),
    ("auto", "qwen2_5_vl", "nf4", HOPPER, FLASH_ATTN, FLASH),
    ("auto", "qwen3_vl", "bfloat16", HOPPER, FLASH_ATTN, FLASH),
    ("auto", "qwen2_vl", "float32", HOPPER, FLASH_ATTN, "sdpa"),
    ("auto", "qwen2_vl", "bfloat16", TURING, FLASH_ATTN, "sdpa"),
    ("auto", "qwen2_vl", "bfloat16", None, FLASH_ATTN, "sdpa"),
    ("auto", "qwen2_vl", "bfloat16", HOPPER, NOTHING, "sdpa"),
    ("auto", "qwen2_vl", "bfloat16", HOPPER, KERNELS, "sdpa"),
    ("auto", "internvl", "bfloat16", HOPPER, FLASH_ATTN, "sdpa"),
    ("auto", "llava_next", "bfloat16", HOPPER, FLASH_ATTN, "sdpa"),
    ("sdpa", "qwen2_vl", "bfloat16", HOPPER, FLASH_ATTN, "sdpa"),
    ("flash_attention_2", "qwen2_vl", "bfloat16", HOPPER, FLASH_ATTN, FLASH),
    ("flash_attention_2", "llava_onevision", "bfloat16", HOPPER, KERNELS, FLASH),
])  # fmt: skip
def test_the_attention_that_is_chosen(wanted, kind, dtype, capability, packages, expected):
    assert attention_of(wanted, kind, dtype, capability, packages) == expected


@pytest.mark.parametrize(("dtype", "capability", "packages", "lacking"), [
    ("float32", HOPPER, FLASH_ATTN, r"needs model\.dtype = 'bfloat16' or 'nf4'\. Install or change what is missing"),
    ("bfloat16", TURING, FLASH_ATTN, r"needs a GPU of compute capability 8\.0 or more .here 7\.5.\. Install"),
    ("bfloat16", None, NOTHING, r"needs a GPU, the package flash-attn, or kernels\. Install or change what is missing"),
])  # fmt: skip
def test_flash_attention_that_cannot_run_is_refused_with_its_reason(
    dtype, capability, packages, lacking
):
    with pytest.raises(ModelError, match=lacking):
        attention_of("flash_attention_2", "qwen2_vl", dtype, capability, packages)


def test_a_model_on_a_cpu_uses_sdpa_and_a_message_names_what_flash_attention_needs(model):
    backbone = open_backbone(model)
    config = backbone.model.config
    parts = (config, config.text_config, config.vision_config)
    assert [part._attn_implementation for part in parts] == ["sdpa"] * 3
    with pytest.raises(ModelError, match=r"model\.attention = 'flash_attention_2': needs a GPU"):
        open_backbone(model.model_copy(update={"attention": "flash_attention_2"}))


@pytest.mark.parametrize("family", MAKERS)
def test_transformers_gives_flash_attention_to_the_vision_tower_alone(family, tmp_path):
    """The test checks the configuration only, because the kernel needs a GPU."""
    MAKERS[family](tmp_path / "m")
    config = transformers.AutoConfig.from_pretrained(tmp_path / "m", attn_implementation=FLASH)
    assert config._attn_implementation == config.get_text_config()._attn_implementation == "sdpa"
    assert config.vision_config._attn_implementation == "flash_attention_2"
    vision = transformers.AutoModelForImageTextToText.from_pretrained(tmp_path / "m").model
    tower = getattr(vision, "visual", None) or vision.vision_tower
    assert tower._supports_flash_attn


@pytest.mark.parametrize("family", ["qwen2_5_vl", *MAKERS])
def test_four_bits_take_the_language_models_linear_layers_and_nothing_else(
    family, tiny_model, tmp_path
):
    """The layers are found by the rule of transformers, on the names that its replacement visits."""
    folder = tiny_model
    if family != "qwen2_5_vl":
        folder = tmp_path / "m"
        MAKERS[family](folder)
    model = transformers.AutoModelForImageTextToText.from_pretrained(folder)
    linear = {name for name, layer in model.named_modules() if type(layer) is nn.Linear}
    inside = {name for name in linear if name.startswith("model.language_model.")}
    default = HfQuantizer.get_modules_to_not_convert(model, None, model._keep_in_fp32_modules)
    ours = HfQuantizer.get_modules_to_not_convert(
        model, four_bits().llm_int8_skip_modules, model._keep_in_fp32_modules
    )
    assert {name for name in linear if should_convert_module(name, default)} > inside, (
        "the vision tower too"
    )
    assert {name for name in linear if should_convert_module(name, ours)} == inside
    assert len(inside) == 7 * len(model.model.language_model.layers)


def test_a_missing_device_is_refused(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert device_of("auto") == device_of("cpu") == torch.device("cpu")
    with pytest.raises(ModelError, match="this process sees no GPU"):
        device_of("cuda")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.current_device", lambda: 3)
    assert device_of("auto") == device_of("cuda") == torch.device("cuda", 3)
    assert device_of("cpu") == torch.device("cpu")


def test_float32_means_float32_in_convolutions_too(model, monkeypatch):
    """Convolutions cut a picture into patches.

    For cuDNN's convolutions, torch's default is TF32, for products it is not.
    """
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    open_backbone(model.model_copy(update={"dtype": "bfloat16"}))
    assert torch.backends.cudnn.allow_tf32
    open_backbone(model)
    assert not torch.backends.cudnn.allow_tf32
    assert torch.get_float32_matmul_precision() == "highest"
