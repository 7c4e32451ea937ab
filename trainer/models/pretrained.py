"""How a model is loaded: on which device, in which dtype or in four bits, and with which attention."""

import importlib.util
from typing import Any, Literal

import torch
import transformers

from trainer.models.settings import Attention, BackboneSettings
from unijudge.errors import ModelError, SettingsError
from unijudge.modeling.inputs import commit_of, load_config, weights_of

KEPT_WHOLE = ("model.visual", "model.vision_tower", "model.multi_modal_projector", "lm_head")
"""What four bits leave alone: the towers and projectors of all families here, and the head. transformers compares the
beginnings of modules' names with these; where a list is given, it adds no default of its own."""
PACKED_VISION = frozenset({"qwen2_vl", "qwen2_5_vl", "qwen3_vl"})
"""The kinds whose vision tower takes pictures of any size as one packed row. With `sdpa` transformers cuts that row by
picture, or window, in each layer, and waits for the GPU to know where. The others see tiles of one size, as a batch."""
FIRST_WITH_BFLOAT16 = (8, 0)
"""Compute capability (Ampere) from which flash-attn runs."""

AttentionChoice = str | dict[str, str]
"""What `from_pretrained` takes: one name, or one for each part of a configuration."""


def device_of(wanted: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """Where a model goes. Of several processes each has its current GPU.

    Raises:
        ModelError: A GPU is wanted, and none is seen.
    """
    seen = torch.cuda.is_available()
    if wanted == "cuda" and not seen:
        raise ModelError("model.device: cuda, but this process sees no GPU; set device = 'cpu'")
    if wanted == "cpu" or not seen:
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())


def check_named(settings: BackboneSettings) -> None:
    """Refuses settings that name no model.

    Raises:
        SettingsError: They do not.
    """
    if not settings.name:
        raise SettingsError("model.name: required; a hub name such as Qwen/Qwen2-VL-2B-Instruct, or a folder")


def base_weights(settings: BackboneSettings) -> str:
    """By what the weights of a model are known, before it is loaded.

    Raises:
        SettingsError: No model is named.
        ModelError: It is not there.
        DataError: A file of its folder cannot be read.
    """
    check_named(settings)
    try:
        commit = commit_of(settings.name, settings.revision)
        load_config(settings.name, commit)
    except ModelError as error:
        raise ModelError(f"{settings.name}: cannot be loaded as a model ({error})") from error
    return weights_of(settings.name, commit)


def pretrained_options(settings: BackboneSettings, kind: str, device: torch.device) -> dict[str, Any]:
    """What `from_pretrained` is told of dtype, quantisation and attention.

    Args:
        settings: The model's.
        kind: The `model_type` of its configuration.
        device: Where it goes.

    Raises:
        ModelError: Four bits or flash attention, without what they need.
    """
    capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else None
    packages = frozenset(name for name in ("flash_attn", "kernels") if importlib.util.find_spec(name))
    attention = attention_of(settings.attention, kind, settings.dtype, capability, packages)
    return {"attn_implementation": attention, **_weights(settings.dtype, device)}


def attention_of(
    wanted: Attention, kind: str, dtype: str, capability: tuple[int, int] | None, packages: frozenset[str]
) -> AttentionChoice:
    """Which attention a model runs with; the language model always with `sdpa`.

    Args:
        wanted: The setting.
        kind: The `model_type` of the configuration.
        dtype: `float32`, `bfloat16` or `nf4`.
        capability: The GPU's compute capability; None on a CPU.
        packages: Which of flash_attn and kernels are installed. With kernels alone transformers fetches flash attention
            from the hub, so only a setting asks for that.

    Raises:
        ModelError: Flash attention is wanted, and cannot run; the message says why.

    Example:
        >>> attention_of("auto", "qwen2_vl", "bfloat16", (9, 0), frozenset({"flash_attn"}))["vision_config"]
        'flash_attention_2'
        >>> attention_of("auto", "qwen2_vl", "bfloat16", None, frozenset())
        'sdpa'
    """
    lacking = _lacking_for_flash(dtype, capability)
    flash = {"": "sdpa", "text_config": "sdpa", "vision_config": "flash_attention_2"}
    if wanted == "auto":
        usable = not lacking and "flash_attn" in packages
        return flash if usable and kind in PACKED_VISION else "sdpa"
    if wanted == "sdpa":
        return "sdpa"
    if not packages:
        lacking.append("the package flash-attn, or kernels")
    if lacking:
        raise ModelError(
            f"model.attention = 'flash_attention_2': needs {', '.join(lacking)}. Install or change that, or set "
            "model.attention = 'auto'"
        )
    return flash


def _lacking_for_flash(dtype: str, capability: tuple[int, int] | None) -> list[str]:
    lacking = []
    if capability is None:
        lacking.append("a GPU")
    elif capability < FIRST_WITH_BFLOAT16:
        lacking.append(f"a GPU of compute capability 8.0 or more (here {capability[0]}.{capability[1]})")
    if dtype == "float32":
        lacking.append("model.dtype = 'bfloat16' or 'nf4'")
    return lacking


def _weights(dtype: str, device: torch.device) -> dict[str, Any]:
    """How the frozen weights are loaded.

    Raises:
        ModelError: Four bits, without what they need.
    """
    if dtype != "nf4":
        return {"dtype": getattr(torch, dtype)}
    if device.type != "cuda" or importlib.util.find_spec("bitsandbytes") is None:
        raise ModelError(
            "model.dtype = 'nf4': needs a GPU and the package bitsandbytes (pip install 'unijudge[qlora]'); or set "
            "'bfloat16'"
        )
    return {"dtype": torch.bfloat16, "quantization_config": four_bits()}


def four_bits() -> Any:
    """The language model's linear layers in nf4; vision tower, projector, embeddings and head in bfloat16.

    Source:
        QLoRA, arXiv 2305.14314.
    """
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
        llm_int8_skip_modules=list(KEPT_WHOLE),
    )
