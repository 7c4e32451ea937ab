"""The files of a folder that hold a model's weights, and a check of their dtypes.

Each engine has its own rules for choosing files. If the rules would choose different files, the folder is refused. Only
the headers of the files are read.
"""

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unijudge.errors import ModelError
from unijudge.formats.model_folders import WEIGHTS_INDEX, WeightsIndex, read_header
from unijudge.shown import listed
from unijudge.storage.files import read_json
from unijudge.storage.listing import foreign_files

WEIGHTS = "model.safetensors"
NUMBERS = frozenset({"F64", "F32", "F16", "BF16"})
"""Dtypes of weights that are not packed."""
FLOAT8 = "F8_"
"""The beginning of eight-bit float dtypes."""

PARTS: Mapping[str, tuple[frozenset[str], ...]] = {
    "awq": (frozenset({"qweight"}), frozenset({"qzeros"}), frozenset({"scales"})),
    "gptq": (frozenset({"qweight"}), frozenset({"qzeros"}), frozenset({"scales"})),
    "fp8": (frozenset({"weight"}), frozenset({"weight_scale", "weight_scale_inv"})),
}
"""Packing method → sets of tensor names. A packed layer holds at least one tensor of each set."""
PACKING = frozenset({*PARTS, "bitsandbytes"})
"""Methods that pack at least some weights into less than 16 bits or into integers."""
POSITION_DTYPES = frozenset({"I64", "BOOL"})
"""Dtypes of tensors that are not weights, such as position numbers."""
SIDE_TENSORS = ("scale", "zero", "shape", "g_idx", "absmax", "quant_map", "quant_state")
"""Words in the names of tensors that only describe the packing of other tensors, for every method."""


def weight_files(folder: Path) -> list[Path]:
    """Returns the safetensors files with a model's weights; empty if the weights are in another format.

    Args:
        folder: The folder of a model, or of a commit in the hub's cache.

    Raises:
        ModelError: transformers and vLLM would read different files.
        DataError: The index cannot be read.
    """
    index = folder / WEIGHTS_INDEX
    shards = _shards(index) if index.is_file() else set()
    single = {WEIGHTS} if (folder / WEIGHTS).is_file() else set()
    pickled = {path.name for path in foreign_files(folder, "pytorch_model*.bin")}
    found = {path.name for path in foreign_files(folder, "*.safetensors")}
    # transformers prefers the single file to the index. vLLM takes the files of the index, or else all files.
    by_transformers = single or shards or pickled
    by_vllm = (
        {name for name in found if name.startswith("consolidated")} or shards or found or pickled
    )
    if by_transformers and by_transformers != by_vllm:
        raise ModelError(
            f"its folder holds two sets of weights: transformers would read {_named(by_transformers)}, vLLM "
            f"{_named(by_vllm)}. Move away the files that do not belong to this model"
        )
    return [folder / name for name in sorted(by_transformers - pickled)]


def _shards(index: Path) -> set[str]:
    """Returns the names of the files in an index.

    Raises:
        ModelError: transformers cannot read the index, or the index names files in other folders, which the model's
            digest would not cover.
        DataError: The index cannot be read.
    """
    found = read_json(index, WeightsIndex)
    if found.metadata is None:
        raise ModelError(
            f'{index.name} has no "metadata", which transformers needs. Add "metadata": {{}}'
        )
    names = set(found.weight_map.values())
    if elsewhere := sorted(name for name in names if Path(name).name != name):
        raise ModelError(
            f"{index.name} names weights in other folders ({listed(elsewhere)}). Put all files of the model into the "
            "model's folder"
        )
    return names


def check_numbers(paths: Sequence[Path], method: str) -> None:
    """Checks that the weights' dtypes match the packing method, and that each packed layer has all of its tensors.

    Args:
        paths: All files of a model's weights.
        method: The packing method; `none` for weights that are not packed.

    Raises:
        ModelError: A dtype does not match, a packed layer lacks a tensor, or a tensor occurs twice.
        DataError: A file cannot be read.
    """
    headers = [read_header(path)[0] for path in paths]
    dtypes = {name: tensor.dtype for header in headers for name, tensor in header.items()}
    if twice := [name for name, times in Counter(itertools.chain(*headers)).items() if times > 1]:
        raise ModelError(
            f"its files hold {len(twice):,} tensors twice (first {min(twice)[:120]}), and engines would take different "
            "copies. Download the model again, or remove the file that does not belong to this model"
        )
    if method == "none":
        # Old checkpoints also hold position numbers, which are not weights.
        weights = [name for name in dtypes if name.endswith((".weight", ".bias"))]
        foreign = [f"{name}: {dtypes[name]}" for name in weights if dtypes[name] not in NUMBERS]
        if foreign:
            raise ModelError(
                f"its config.json names no quantisation, but {len(foreign):,} tensors are not floating-point numbers "
                f"of 16 bits or more (first {min(foreign)[:120]}). Take the config.json of these weights"
            )
        return
    if method in PACKING and set(dtypes.values()) <= NUMBERS | POSITION_DTYPES:
        raise ModelError(
            f"its config.json says that its weights are packed by {method}, but no weight is packed. Remove "
            "quantization_config from config.json, or take the packed weights"
        )
    if faults := torn_layers(dtypes, method):
        raise ModelError(
            f"its checkpoint does not hold this model: {len(faults):,} layers that are packed by {method} lack a part "
            f"(first {faults[0]}). Download the model again"
        )


def torn_layers(dtypes: Mapping[str, str], method: str) -> list[str]:
    """Returns the layers that lack a part of their packed tensors, with the missing parts. Unknown methods pass.

    Example:
        >>> torn_layers({"a.qweight": "I32", "a.qzeros": "I32", "a.scales": "F16", "b.scales": "F16"}, "awq")
        ['b: no qweight, no qzeros']
    """
    layers: dict[str, set[str]] = {}
    for name in dtypes:
        layer, _, part = name.rpartition(".")
        layers.setdefault(layer, set()).add(part)

    # Each entry of `wanted` has the names that one part of a packed layer may have.
    wanted = PARTS.get(method, ())
    packed_names = set[str]().union(*wanted) - {"weight"}
    faults = []
    for layer, parts in sorted(layers.items()):
        dtype = dtypes.get(f"{layer}.weight", "")
        if not parts & packed_names and not dtype.startswith(FLOAT8):
            continue  # this layer is not packed
        lacking = [" or ".join(sorted(names)) for names in wanted if not parts & names]
        if lacking:
            faults.append(f"{layer[:120]}: no {', no '.join(lacking)}")
    return faults


def packing_of(quantization_config: Any) -> str:
    """Returns the packing method of a model's weights: the `quant_method` of its configuration, or `none`.

    Example:
        >>> packing_of(None), packing_of({"quant_method": "awq", "bits": 4})
        ('none', 'awq')
    """
    if quantization_config is None:
        return "none"
    is_table = isinstance(quantization_config, Mapping)
    fields = quantization_config if is_table else quantization_config.to_dict()
    return str(fields.get("quant_method", "unknown"))


def is_side_tensor(part: str) -> bool:
    """Whether a tensor of a packed layer only describes the packing of another tensor, by the last parts of its name.

    Example:
        >>> [is_side_tensor(part) for part in ("scales", "weight.absmax", "weight_packed", "qweight")]
        [True, True, False, False]
    """
    return any(word in part for word in SIDE_TENSORS)


def _named(names: set[str]) -> str:
    shown = sorted(names)[:2]
    return ", ".join(shown) + (f" and {len(names) - 2} more" if len(names) > 2 else "")
