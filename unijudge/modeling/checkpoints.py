"""A check that a checkpoint holds exactly the tensors of its model. Engines may silently make missing tensors random.

The check applies to judges, embedders and adapters, with every engine. It reads only the headers of the files.
"""

import copy
import pickle
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from unijudge.errors import DataError, ModelError
from unijudge.formats.model_folders import WEIGHTS_INDEX, check_safetensors
from unijudge.modeling.model_source import NO_CODE, load_config
from unijudge.modeling.weight_files import (
    WEIGHTS,
    check_numbers,
    is_side_tensor,
    packing_of,
    weight_files,
)
from unijudge.shown import NAMED
from unijudge.storage.access_errors import in_one_line

LONGEST_NAME = 120
"""The most characters of a tensor's name in a message."""

Shape = tuple[int, ...]


def check_checkpoint(name: str, revision: str | None) -> None:
    """Checks that a checkpoint has every tensor of the model that its configuration describes, and no other tensor.

    The model is built without memory (on the meta device), and transformers assigns each tensor, including old names
    and tied weights. For packed weights (AWQ and similar methods), the check only requires that a packed layer has all
    of its tensors.

    Args:
        name: A hub name or a folder. A hub model is downloaded, as any engine would do.
        revision: The commit of a hub model.

    Raises:
        ModelError: A tensor is missing or unexpected, has another shape, or has another kind of number; engines would
            read different files; or the files cannot be read.
        DataError: The headers of the files cannot be read.
    """
    import transformers

    folder = _folder_of(name, revision)
    paths = weight_files(folder) if folder else []
    try:
        for path in paths:
            check_safetensors(path)
    except DataError as error:
        raise ModelError(f"its weights cannot be read: {error}") from error

    bars = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    try:
        config = copy.deepcopy(load_config(name, revision))
        packed = getattr(config, "quantization_config", None)
        if packed is not None:  # the packing's own library may be missing here
            del config.quantization_config
        model, found = transformers.AutoModelForImageTextToText.from_pretrained(
            name,
            revision=revision,
            config=config,
            device_map="meta",
            **NO_CODE,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    except pickle.UnpicklingError as error:
        # torch's own message would advise to run the code in the file.
        raise ModelError(
            f"its weights cannot be read: {folder or name}: pytorch_model*.bin holds no tensors, or holds code too, "
            "which is never run here. Download the model again, or take a model with safetensors"
        ) from error
    except Exception as error:  # a file may hold anything, and each library has its own errors
        raise ModelError(
            f"its weights cannot be read ({in_one_line(error)}). Download the model again"
        ) from error
    finally:
        if bars:
            transformers.utils.logging.enable_progress_bar()
    missing, unexpected = found["missing_keys"], found["unexpected_keys"]
    reshaped = {
        key: (tuple(there), tuple(wanted)) for key, there, wanted in found["mismatched_keys"]
    }
    if packed is not None:
        missing, unexpected, reshaped = _without_packed(model, missing, unexpected, reshaped)
    fault = _misfit(missing, unexpected, reshaped)
    if fault:
        raise ModelError(
            f"its checkpoint does not hold this model: {fault}. Download it again, or take the config.json of these "
            "weights"
        )
    check_numbers(paths, packing_of(packed))


def _folder_of(name: str, revision: str | None) -> Path | None:
    """Returns the folder that holds a model's weights, or None if the weights are not in safetensors files.

    Raises:
        ModelError: The folder also holds an adapter.
    """
    from transformers.utils import find_adapter_config_file, hub

    if find_adapter_config_file(name, revision=revision) is not None:
        raise ModelError(
            "an adapter is beside the model's weights, and not every engine applies adapters. Merge the adapter, or "
            "remove adapter_config.json and adapter_model.safetensors"
        )
    if Path(name).is_dir():
        return Path(name)
    passing = {
        "_raise_exceptions_for_missing_entries": False,
        "_raise_exceptions_for_connection_errors": False,
    }
    found = [
        hub.cached_file(name, file, revision=revision, **passing)
        for file in (WEIGHTS_INDEX, WEIGHTS)
    ]
    return next((Path(path).parent for path in found if path), None)


def check_tensors(wanted: Mapping[str, Shape], found: Mapping[str, Shape]) -> None:
    """Checks that two sets of tensors have the same names and shapes.

    Args:
        wanted: The tensors of the model.
        found: The tensors in the file.

    Raises:
        ModelError: The tensors differ. For each kind of difference, the message has the number and up to five names.

    Example:
        >>> check_tensors({"a": (2, 3), "b": (4,)}, {"a": (2, 5)})
        Traceback (most recent call last):
        unijudge.errors.ModelError: tensors missing: 1 (b); of another shape: 1 (a: 2×5, not 2×3)
    """
    missing = wanted.keys() - found.keys()
    unexpected = found.keys() - wanted.keys()
    reshaped = {}
    for name in wanted.keys() & found.keys():
        if found[name] != wanted[name]:
            reshaped[name] = (found[name], wanted[name])
    if fault := _misfit(missing, unexpected, reshaped):
        raise ModelError(fault)


def _misfit(
    missing: Collection[str],
    unexpected: Collection[str],
    reshaped: Mapping[str, tuple[Shape, Shape]],
) -> str | None:
    """Returns the differences in words, or None if all tensors fit."""
    shapes = []
    for name, (found, wanted) in reshaped.items():
        shapes.append(f"{name}: {_by(found)}, not {_by(wanted)}")

    faults = []
    for kind, names in (
        ("missing", missing),
        ("unexpected", unexpected),
        ("of another shape", shapes),
    ):
        if names:
            faults.append(f"{kind}: {len(names):,} ({_some(names)})")
    if not faults:
        return None
    return "tensors " + "; ".join(faults)


def _some(names: Collection[str]) -> str:
    shown = ", ".join(name[:LONGEST_NAME] for name in sorted(names)[:NAMED])
    return shown + (f" and {len(names) - NAMED:,} more" if len(names) > NAMED else "")


def _by(shape: Shape) -> str:
    return "×".join(map(str, shape)) or "a single number"


def _without_packed(
    model: Any,
    missing: Collection[str],
    unexpected: Collection[str],
    reshaped: Mapping[str, tuple[Shape, Shape]],
) -> tuple[set[str], set[str], dict[str, tuple[Shape, Shape]]]:
    """Removes the differences that packing explains: packed weights of a linear layer have other names or shapes.

    Args:
        model: The model, built without packing.
        missing: Tensors of the model that the checkpoint lacks.
        unexpected: Tensors of the checkpoint that the model lacks.
        reshaped: Tensors with another shape in the checkpoint.

    Returns:
        `missing`, `unexpected` and `reshaped` without these differences.
    """
    linear = {name for name, module in model.named_modules() if type(module).__name__ == "Linear"}
    packed = {name: _owner(name, linear) for name in unexpected}
    # A scale without packed values is not a weight.
    filled = {
        owner
        for name, owner in packed.items()
        if owner and not is_side_tensor(name.removeprefix(owner))
    }
    return (
        {name for name in missing if name.rpartition(".")[0] not in filled},
        {name for name, owner in packed.items() if owner is None},
        {
            name: shapes
            for name, shapes in reshaped.items()
            if name.rpartition(".")[0] not in linear
        },
    )


def _owner(name: str, layers: Collection[str]) -> str | None:
    """Returns the layer whose name is the beginning of a tensor's name, or None."""
    parts = name.split(".")
    return next(
        (
            ".".join(parts[:end])
            for end in range(len(parts), 0, -1)
            if ".".join(parts[:end]) in layers
        ),
        None,
    )
