"""The options with which a model is loaded: device, dtype, quantisation and attention."""

import importlib.util
from typing import Any, Literal

import torch
import transformers

from trainer.models.settings import Attention, BackboneSettings
from unijudge.errors import ModelError, SettingsError
from unijudge.modeling.model_source import commit_of, load_config, weights_of

KEPT_WHOLE = ("model.visual", "model.vision_tower", "model.multi_modal_projector", "lm_head")
"""The modules that are not quantised to four bits: the vision towers and projectors of all supported families, and the
head. transformers compares these strings with the beginnings of module names. If a list is given, transformers does not
add its defaults."""
PACKED_VISION = frozenset({"qwen2_vl", "qwen2_5_vl", "qwen3_vl"})
"""The model types whose vision tower takes images of any size as one packed sequence. With `sdpa`, transformers splits
this sequence by image or window in each layer, and waits for the GPU before each split. The vision towers of the other
types take a batch of tiles of equal size."""
FIRST_WITH_BFLOAT16 = (8, 0)
"""The lowest compute capability (Ampere) on which flash-attn runs."""

AttentionChoice = str | dict[str, str]
"""The attention argument of `from_pretrained`: one name, or a name for each part of a configuration."""


def device_of(wanted: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """Returns the device of a model. If a job has several processes, each process uses its current GPU.

    Raises:
        ModelError: The settings ask for a GPU, but this process sees no GPU.
    """
    has_gpu = torch.cuda.is_available()
    if wanted == "cuda" and not has_gpu:
        raise ModelError(
            "model.device: cuda, but this process sees no GPU. Set model.device = 'cpu'"
        )
    if wanted == "cpu" or not has_gpu:
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())


def check_named(settings: BackboneSettings) -> None:
    """Checks that the settings name a model.

    Raises:
        SettingsError: The settings name no model.
    """
    if not settings.name:
        raise SettingsError(
            "model.name: required. Give a hub name such as Qwen/Qwen2-VL-2B-Instruct, or a folder"
        )


def base_weights(settings: BackboneSettings) -> str:
    """Returns the identity of a model's weights, without loading the model.

    Raises:
        SettingsError: The settings name no model.
        ModelError: The model does not exist.
        DataError: A file of the model's folder cannot be read.
    """
    check_named(settings)
    try:
        commit = commit_of(settings.name, settings.revision)
        load_config(settings.name, commit)
    except ModelError as error:
        raise ModelError(f"{settings.name}: cannot be loaded as a model ({error})") from error
    return weights_of(settings.name, commit)


def pretrained_options(
    settings: BackboneSettings, kind: str, device: torch.device
) -> dict[str, Any]:
    """Returns the arguments of `from_pretrained` for dtype, quantisation and attention.

    Args:
        settings: The settings of the model.
        kind: The `model_type` of the model's configuration.
        device: The device of the model.

    Raises:
        ModelError: A requirement of four bits or of flash attention is missing.
    """
    capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else None
    packages = frozenset(
        name for name in ("flash_attn", "kernels") if importlib.util.find_spec(name)
    )
    attention = attention_of(settings.attention, kind, settings.dtype, capability, packages)
    return {"attn_implementation": attention, **_weights(settings.dtype, device)}


def attention_of(
    wanted: Attention,
    kind: str,
    dtype: str,
    capability: tuple[int, int] | None,
    packages: frozenset[str],
) -> AttentionChoice:
    """Returns the attention of a model. The language model always runs with `sdpa`.

    Args:
        wanted: The value of the setting.
        kind: The `model_type` of the configuration.
        dtype: `float32`, `bfloat16` or `nf4`.
        capability: The compute capability of the GPU. None on a CPU.
        packages: The installed packages among flash_attn and kernels. With kernels alone, transformers downloads flash
            attention from the hub, so `auto` does not use kernels.

    Raises:
        ModelError: The setting asks for flash attention, which cannot run here. The message lists what is missing.

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
            f"model.attention = 'flash_attention_2': needs {', '.join(lacking)}. Install or change what is missing, or "
            "set model.attention = 'auto'"
        )
    return flash


def _lacking_for_flash(dtype: str, capability: tuple[int, int] | None) -> list[str]:
    lacking = []
    if capability is None:
        lacking.append("a GPU")
    elif capability < FIRST_WITH_BFLOAT16:
        lacking.append(
            f"a GPU of compute capability 8.0 or more (here {capability[0]}.{capability[1]})"
        )
    if dtype == "float32":
        lacking.append("model.dtype = 'bfloat16' or 'nf4'")
    return lacking


def _weights(dtype: str, device: torch.device) -> dict[str, Any]:
    """Returns the arguments of `from_pretrained` for the frozen weights.

    Raises:
        ModelError: A requirement of four bits is missing.
    """
    if dtype != "nf4":
        return {"dtype": getattr(torch, dtype)}
    if device.type != "cuda" or importlib.util.find_spec("bitsandbytes") is None:
        raise ModelError(
            "model.dtype = 'nf4': needs a GPU and the package bitsandbytes (pip install 'unijudge[qlora]'). Install "
            "the package, or set model.dtype = 'bfloat16'"
        )
    return {"dtype": torch.bfloat16, "quantization_config": four_bits()}


def four_bits() -> Any:
    """Returns the quantisation: the linear layers of the language model in nf4, all other modules in bfloat16.

    The other modules are the vision tower, the projector, the embeddings and the head.

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
