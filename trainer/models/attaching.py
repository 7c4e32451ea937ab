"""Loads an adapter of PEFT on top of a model. Tensor names of an older transformers are renamed.

Every tensor of the adapter's file is loaded into the model, and every adapter tensor of the model comes from the file.
"""

import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from unijudge.errors import ModelError, UnijudgeError
from unijudge.formats.model_folders import AdapterConfig, check_safetensors
from unijudge.modeling.checkpoints import check_tensors
from unijudge.modeling.model_source import ADAPTER_CONFIG
from unijudge.storage.access_errors import in_one_line
from unijudge.storage.files import read_json

ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
"""The names that PEFT gives to the file of an adapter's tensors."""
PREFIX = "base_model.model."
"""The prefix of an adapter's tensor names, before the name of the layer."""

logger = logging.getLogger(__name__)


def with_adapter(model: Any, folder: Path) -> Any:
    """Returns a model with the adapter of a folder.

    Raises:
        ModelError: The folder holds no adapter, the adapter does not match the model, or a file is damaged.
        DataError: A file of the adapter cannot be read.
    """
    import peft

    if not (folder / ADAPTER_CONFIG).is_file():
        raise ModelError(
            f"{folder}: not an adapter ({ADAPTER_CONFIG} is missing). Give the folder adapter/ of a run"
        )
    read_json(folder / ADAPTER_CONFIG, AdapterConfig)
    tensors = next((folder / name for name in ADAPTER_WEIGHTS if (folder / name).is_file()), None)
    if tensors is None:
        raise ModelError(
            f"{folder}: the tensors of the adapter ({ADAPTER_WEIGHTS[0]}) are missing. Train or download it again"
        )
    names = _newer_names(model)
    try:
        if tensors.name == ADAPTER_WEIGHTS[0]:
            check_safetensors(tensors)
        weights = peft.load_peft_weights(str(folder), device="cpu", key_mapping=names)
        old = weights.keys() - peft.load_peft_weights(str(folder), device="cpu").keys()
        config = peft.PeftConfig.from_pretrained(str(folder))
        if old and isinstance(config.target_modules, str):  # a pattern that matches the old names
            config.target_modules = {
                name.removeprefix(PREFIX).rpartition(".lora_")[0] for name in weights
            }
        with warnings.catch_warnings(action="ignore"):  # `check_adapter` below checks all tensors
            adapted = peft.PeftModel.from_pretrained(
                model,
                str(folder),
                config=config,
                torch_device=str(model.device),
                ignore_mismatched_sizes=True,
                key_mapping=names,
            )
        check_adapter(adapted, weights)
    except UnijudgeError as error:
        raise ModelError(f"{folder}: this adapter does not match the model ({error})") from error
    except Exception as error:  # damaged files raise errors of many types in these libraries
        raise ModelError(
            f"{folder}: this adapter does not match the model ({in_one_line(error)})"
        ) from error
    if old:
        logger.info(
            "%s: renamed %d tensors, which have names of an older transformers", folder, len(old)
        )
    return adapted


def _newer_names(model: Any) -> dict[str, str]:
    """Returns pattern → replacement for the older tensor names of this model, from the table of transformers."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightRenaming

    known = get_model_conversion_mapping(model, add_legacy=False)
    return {
        rule.source_patterns[0]: rule.target_patterns[0]
        for rule in known
        if type(rule) is WeightRenaming
    }


def check_adapter(model: Any, weights: Mapping[str, Tensor]) -> None:
    """Checks that a file has exactly the tensors of a model's adapter. PEFT would silently ignore other tensors.

    Raises:
        ModelError: A tensor is missing, unknown or of another shape.
    """
    import peft

    wanted = {
        name: tuple(tensor.shape) for name, tensor in peft.get_peft_model_state_dict(model).items()
    }
    check_tensors(wanted, {name: tuple(tensor.shape) for name, tensor in weights.items()})
