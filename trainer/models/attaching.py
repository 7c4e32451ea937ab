"""Puts an adapter on a model: any that PEFT wrote, also one whose tensors have the names of an older transformers.

What it promises: every tensor of the adapter's file has found its place, and every place its tensor.
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
from unijudge.modeling.inputs import ADAPTER_CONFIG
from unijudge.storage.access_errors import in_one_line
from unijudge.storage.files import read_json

ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
"""What PEFT calls the file of an adapter's tensors."""
PREFIX = "base_model.model."
"""Of the names of an adapter's tensors, before that of their place."""

logger = logging.getLogger(__name__)


def with_adapter(model: Any, folder: Path) -> Any:
    """A model with an adapter on it.

    Raises:
        ModelError: No adapter is there, it does not fit the model, or a file of it is damaged.
        DataError: A file of it cannot be read.
    """
    import peft

    if not (folder / ADAPTER_CONFIG).is_file():
        raise ModelError(f"{folder}: no adapter there ({ADAPTER_CONFIG} is missing); give the adapter/ of a run")
    read_json(folder / ADAPTER_CONFIG, AdapterConfig)
    found = next((folder / name for name in ADAPTER_WEIGHTS if (folder / name).is_file()), None)
    if found is None:
        raise ModelError(f"{folder}: its tensors ({ADAPTER_WEIGHTS[0]}) are missing; train or download it again")
    names = _newer_names(model)
    try:
        if found.name == ADAPTER_WEIGHTS[0]:
            check_safetensors(found)
        weights = peft.load_peft_weights(str(folder), device="cpu", key_mapping=names)
        old = weights.keys() - peft.load_peft_weights(str(folder), device="cpu").keys()
        config = peft.PeftConfig.from_pretrained(str(folder))
        if old and isinstance(config.target_modules, str):  # a pattern of the old names
            config.target_modules = {name.removeprefix(PREFIX).rpartition(".lora_")[0] for name in weights}
        with warnings.catch_warnings(action="ignore"):  # what is missing or does not fit is looked at below
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
        raise ModelError(f"{folder}: this adapter does not fit the model ({error})") from error
    except Exception as error:  # a file may hold anything, and each library has errors of its own
        raise ModelError(f"{folder}: this adapter does not fit the model ({in_one_line(error)})") from error
    if old:
        logger.info("%s: %d tensors have the names of an older transformers, and were renamed", folder, len(old))
    return adapted


def _newer_names(model: Any) -> dict[str, str]:
    """Pattern → replacement, of the names that checkpoints of this model had before, by transformers' own table."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightRenaming

    known = get_model_conversion_mapping(model, add_legacy=False)
    return {one.source_patterns[0]: one.target_patterns[0] for one in known if type(one) is WeightRenaming}


def check_adapter(model: Any, weights: Mapping[str, Tensor]) -> None:
    """Returns if an adapter's file has every tensor of the adapter that is on a model, and no other: PEFT drops those.

    Raises:
        ModelError: It has not.
    """
    import peft

    wanted = {name: tuple(tensor.shape) for name, tensor in peft.get_peft_model_state_dict(model).items()}
    check_tensors(wanted, {name: tuple(tensor.shape) for name, tensor in weights.items()})
