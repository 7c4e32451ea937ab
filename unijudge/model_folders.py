"""Folders of models as other libraries load them: a run's adapter/ and merged/, and what `train export` writes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from unijudge.datasets import every
from unijudge.errors import DataError
from unijudge.files import read_json, read_text
from unijudge.refused import unreadable

WEIGHTS_INDEX = "model.safetensors.index.json"


class ModelConfig(BaseModel):
    """config.json: a model as other libraries load it, such as a run's merged/ or a merged export."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())

    model_type: str
    architectures: list[str] | None = None
    dtype: str | None = None
    torch_dtype: str | None = None


class AdapterConfig(BaseModel):
    """adapter_config.json: an adapter as peft loads it."""

    model_config = ConfigDict(extra="ignore")

    peft_type: str
    base_model_name_or_path: str | None = None
    r: int | None = None


class _WeightsIndex(BaseModel):
    weight_map: dict[str, str]


class _Tensor(BaseModel):
    """What a header of safetensors says of one tensor."""

    data_offsets: tuple[int, int]


_OBJECT, _TENSORS = TypeAdapter(dict[str, Any]), TypeAdapter(dict[str, _Tensor])


def missing_weights(folder: Path, manifest: ModelConfig | AdapterConfig, sizes: Mapping[str, int]) -> list[str]:
    """The files of weights that a model's folder needs and has not."""
    if isinstance(manifest, AdapterConfig):
        wanted = {"adapter_model.safetensors"}
    elif WEIGHTS_INDEX in sizes:
        wanted = set(read_json(folder / WEIGHTS_INDEX, _WeightsIndex).weight_map.values())
    else:
        wanted = {"model.safetensors"}
    return sorted(wanted - set(sizes))


def check_model(folder: Path, _: ModelConfig | AdapterConfig) -> str:
    """Small files as JSON, and all weights."""

    def read(path: Path) -> int:
        try:
            json.loads(read_text(path))
        except json.JSONDecodeError as error:
            raise DataError(f"{path}: not JSON ({error.msg}); export or merge again") from error
        return 1

    small = every(read, sorted(folder.rglob("*.json")))
    return f"{small} JSON files and {check_weights(folder)} files of weights read"


def check_weights(folder: Path) -> int:
    """Of every file of weights, that its bytes are all there; how many there are."""
    return every(check_safetensors, sorted(folder.rglob("*.safetensors")))


def check_safetensors(path: Path) -> int:
    """By the format: eight bytes of the header's length, the header with every tensor's place, the tensors."""
    try:
        with path.open("rb") as file:
            found = path.stat().st_size
            length = int.from_bytes(file.read(8), "little")
            header = _OBJECT.validate_json(file.read(min(length, found)))
        header.pop("__metadata__", None)
        ends = [tensor.data_offsets[1] for tensor in _TENSORS.validate_python(header).values()]
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise DataError(f"{path}: torn or foreign (its header: {reason}); train again") from error
    except OSError as error:
        raise unreadable(path, error) from error
    if found != 8 + length + max(ends, default=0):
        raise DataError(f"{path}: {found} bytes, but its header says {8 + length + max(ends, default=0)}; train again")
    return 1
