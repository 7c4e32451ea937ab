"""Model folders that other libraries load: a run's adapter/ and merged/, and the output of `train export`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from unijudge.errors import DataError
from unijudge.formats.datasets import every
from unijudge.storage.access_errors import unreadable
from unijudge.storage.files import read_json, read_text
from unijudge.storage.listing import all_files
from unijudge.storage.texts import HEAD_BYTES, check_no_pointer

WEIGHTS_INDEX = "model.safetensors.index.json"


class ModelConfig(BaseModel):
    """config.json of a model that other libraries load, such as a run's merged/ or a merged export."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())

    model_type: str
    architectures: list[str] | None = None
    dtype: str | None = None
    torch_dtype: str | None = None


class AdapterConfig(BaseModel):
    """adapter_config.json of an adapter that peft loads."""

    model_config = ConfigDict(extra="ignore")

    peft_type: str
    base_model_name_or_path: str | None = None
    r: int | None = None


class WeightsIndex(BaseModel):
    """model.safetensors.index.json, which maps each tensor to its file."""

    weight_map: dict[str, str]
    metadata: dict[str, Any] | None = None


def missing_weights(
    folder: Path, manifest: ModelConfig | AdapterConfig, sizes: Mapping[str, int]
) -> list[str]:
    """Returns the weight files that a model's folder needs but lacks."""
    if isinstance(manifest, AdapterConfig):
        wanted = {"adapter_model.safetensors"}
    elif WEIGHTS_INDEX in sizes:
        wanted = set(read_json(folder / WEIGHTS_INDEX, WeightsIndex).weight_map.values())
    else:
        wanted = {"model.safetensors"}
    return sorted(wanted - set(sizes))


def check_model(folder: Path, _: ModelConfig | AdapterConfig) -> str:
    """Reads all JSON files and all weight files, and returns their numbers in words."""

    def read(path: Path) -> int:
        try:
            json.loads(read_text(path))
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}: not JSON ({error}). Export or merge again") from error
        return 1

    small = every(read, all_files(folder, ".json"))
    return f"{small} JSON files and {check_weights(folder)} files of weights read"


def check_weights(folder: Path) -> int:
    """Checks that every weight file is complete, and returns the number of weight files."""
    return every(check_safetensors, all_files(folder, ".safetensors"))


def check_safetensors(path: Path) -> int:
    """Checks that a safetensors file is complete; returns 1.

    The file has eight bytes with the header's length, the header with every tensor's offsets, and the tensors.

    Raises:
        DataError: The file cannot be read, is damaged, or has another size than its header says.
    """
    tensors, begins = read_header(path)
    needed = begins + max((tensor.data_offsets[1] for tensor in tensors.values()), default=0)
    try:
        found = path.stat().st_size
    except OSError as error:
        raise unreadable(path, error) from error
    if found != needed:
        raise DataError(
            f"{path}: {found} bytes, but its header says {needed}. Train or download it again"
        )
    return 1


class StoredTensor(BaseModel):
    """The entry of a tensor in the header of a safetensors file."""

    dtype: str
    """The dtype, such as F32, BF16, I8 or F8_E4M3."""
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]
    """The first byte of the tensor and the byte after its end, counted from the end of the header."""


_TENSORS = TypeAdapter(dict[str, StoredTensor])


def read_header(path: Path) -> tuple[dict[str, StoredTensor], int]:
    """Returns the tensors of a safetensors file by name, and the offset in the file at which the tensors begin.

    Raises:
        DataError: The file cannot be read, or is not a safetensors file.
    """
    try:
        with path.open("rb") as file:
            first = file.read(8)
            length = int.from_bytes(first, "little")
            check_no_pointer(path, first + file.read(HEAD_BYTES - 8))
            file.seek(8)
            if length > path.stat().st_size:
                raise ValueError("it is shorter than its header")
            header = json.loads(file.read(length))
        if isinstance(header, dict):
            header.pop("__metadata__", None)
        return _TENSORS.validate_python(header), 8 + length
    except (ValidationError, RecursionError) as error:
        raise DataError(
            f"{path}: damaged or foreign (its header is not a table of tensors). Train or download it again"
        ) from error
    except ValueError as error:
        raise DataError(
            f"{path}: damaged or foreign ({error}). Train or download it again"
        ) from error
    except OSError as error:
        raise unreadable(path, error) from error
