"""Which files of a folder hold a model's weights, and whether their numbers are of the kind that the model needs.

Engines choose files by rules of their own: where the rules would choose differently, the folder is refused. Only the
files' headers are read.
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
"""Dtypes that weights have where nothing is packed."""
FLOAT8 = "F8_"
"""How dtypes of eight bits begin."""

PARTS: Mapping[str, tuple[frozenset[str], ...]] = {
    "awq": (frozenset({"qweight"}), frozenset({"qzeros"}), frozenset({"scales"})),
    "gptq": (frozenset({"qweight"}), frozenset({"qzeros"}), frozenset({"scales"})),
    "fp8": (frozenset({"weight"}), frozenset({"weight_scale", "weight_scale_inv"})),
}
"""Method of packing → what a packed layer holds: of each set one tensor at least."""
PACKING = frozenset({*PARTS, "bitsandbytes"})
"""Methods of which at least a part of the weights is no floating-point number of 16 bits or more."""
POSITION_DTYPES = frozenset({"I64", "BOOL"})
"""Dtypes of what is no weight, as the numbers of positions."""
SIDE_TENSORS = ("scale", "zero", "shape", "g_idx", "absmax", "quant_map", "quant_state")
"""What stands in the names of tensors that only say how others are packed, whatever the method."""


def weight_files(folder: Path) -> list[Path]:
    """The files of safetensors that a model's weights are read from; none where they lie in another format.

    Args:
        folder: Of a model, or of one commit in a hub's cache.

    Raises:
        ModelError: transformers and vLLM would read different files.
        DataError: The index cannot be read.
    """
    index = folder / WEIGHTS_INDEX
    shards = _shards(index) if index.is_file() else set()
    single = {WEIGHTS} if (folder / WEIGHTS).is_file() else set()
    pickled = {path.name for path in foreign_files(folder, "pytorch_model*.bin")}
    found = {path.name for path in foreign_files(folder, "*.safetensors")}
    # transformers takes the single file before the index. vLLM takes what the index names; else all that there is.
    by_transformers = single or shards or pickled
    by_vllm = {name for name in found if name.startswith("consolidated")} or shards or found or pickled
    if by_transformers and by_transformers != by_vllm:
        raise ModelError(
            f"its folder holds two sets of weights: transformers would read {_named(by_transformers)}, vLLM "
            f"{_named(by_vllm)}. Move away the files that are not this model's"
        )
    return [folder / name for name in sorted(by_transformers - pickled)]


def _shards(index: Path) -> set[str]:
    """The files that an index names.

    Raises:
        ModelError: transformers cannot read it, or it leads out of its folder: by the files there a model is known.
        DataError: It cannot be read.
    """
    found = read_json(index, WeightsIndex)
    if found.metadata is None:
        raise ModelError(f'{index.name} has no "metadata", which transformers wants. Write "metadata": {{}} in it')
    names = set(found.weight_map.values())
    if elsewhere := sorted(name for name in names if Path(name).name != name):
        raise ModelError(
            f"{index.name} names weights in other folders ({listed(elsewhere)}). Put all files of a model into its own "
            "folder"
        )
    return names


def check_numbers(paths: Sequence[Path], method: str) -> None:
    """Returns if the weights' dtypes are those of the method, and each packed layer holds all of its tensors.

    Args:
        paths: All files of a model's weights.
        method: By which they are packed; `none` for numbers as they are.

    Raises:
        ModelError: They are not.
        DataError: A file cannot be read.
    """
    headers = [read_header(path)[0] for path in paths]
    dtypes = {name: tensor.dtype for header in headers for name, tensor in header.items()}
    if twice := [name for name, times in Counter(itertools.chain(*headers)).items() if times > 1]:
        raise ModelError(
            f"its files hold {len(twice):,} tensors twice (first {min(twice)[:120]}), and engines would take different "
            "ones. Download it again, or leave out the file that is not this model's"
        )
    if method == "none":
        # Old checkpoints also hold the numbers of positions, which are no weights.
        weights = [name for name in dtypes if name.endswith((".weight", ".bias"))]
        foreign = [f"{name}: {dtypes[name]}" for name in weights if dtypes[name] not in NUMBERS]
        if foreign:
            raise ModelError(
                f"its config.json names no quantisation, but {len(foreign):,} tensors hold no floating-point numbers "
                f"of 16 bits or more (first {min(foreign)[:120]}). Take the config.json of these weights"
            )
        return
    if method in PACKING and set(dtypes.values()) <= NUMBERS | POSITION_DTYPES:
        raise ModelError(
            f"its config.json says that its weights are packed by {method}, and none is. Take quantization_config out "
            "of config.json, or take the packed weights"
        )
    if faults := torn_layers(dtypes, method):
        raise ModelError(
            f"its checkpoint does not hold this model: {len(faults):,} layers that are packed by {method} lack a part "
            f"(first {faults[0]}). Download it again"
        )


def torn_layers(dtypes: Mapping[str, str], method: str) -> list[str]:
    """The layers that hold a part of their packed tensors, each with what is missing; none for an unknown method.

    Example:
        >>> torn_layers({"a.qweight": "I32", "a.qzeros": "I32", "a.scales": "F16", "b.scales": "F16"}, "awq")
        ['b: no qweight, no qzeros']
    """
    layers: dict[str, set[str]] = {}
    for name in dtypes:
        layer, _, part = name.rpartition(".")
        layers.setdefault(layer, set()).add(part)
    wanted = PARTS.get(method, ())
    faults = []
    for layer, parts in sorted(layers.items()):
        is_packed = any(parts & names - {"weight"} for names in wanted)
        is_packed = is_packed or dtypes.get(f"{layer}.weight", "").startswith(FLOAT8)
        lacking = [f"no {' or '.join(sorted(names))}" for names in wanted if not parts & names]
        if is_packed and lacking:
            faults.append(f"{layer[:120]}: {', '.join(lacking)}")
    return faults


def packing_of(quantization_config: Any) -> str:
    """By which method a model's weights are packed: the `quant_method` of its configuration, or `none`.

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
    """Whether a tensor of a packed layer, by the last parts of its name, only says how another one is packed.

    Example:
        >>> [is_side_tensor(part) for part in ("scales", "weight.absmax", "weight_packed", "qweight")]
        [True, True, False, False]
    """
    return any(word in part for word in SIDE_TENSORS)


def _named(names: set[str]) -> str:
    shown = sorted(names)[:2]
    return ", ".join(shown) + (f" and {len(names) - 2} more" if len(names) > 2 else "")
