"""The error for a full GPU memory, with figures and with the settings that help."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from trainer.models.settings import BackboneSettings
from unijudge.errors import OutOfMemory
from unijudge.memory import is_out_of_memory

GIB = 2**30


@dataclass(frozen=True)
class DeviceMemory:
    """The memory of one GPU, in bytes."""

    name: str
    total: int
    peak: int
    """The largest memory that the tensors of this process ever used."""
    free: int
    """The memory that this process can still use: free on the GPU, or reserved by torch and empty."""

    @classmethod
    def of(cls, device: torch.device) -> "DeviceMemory | None":
        """Measures the memory of a device now. None for a CPU."""
        if device.type != "cuda":
            return None
        free, total = torch.cuda.mem_get_info(device)
        empty = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        name = torch.cuda.get_device_properties(device).name
        return cls(
            name=name, total=total, peak=torch.cuda.max_memory_allocated(device), free=free + empty
        )

    def __str__(self) -> str:
        return f"{self.name} ({gib(self.total)}; tensors used {gib(self.peak)} at the peak, {gib(self.free)} are free)"


def gib(size: int) -> str:
    """Returns a number of bytes as text.

    Example:
        >>> gib(3 * 2**29)
        '1.5 GiB'
    """
    return f"{size / GIB:.1f} GiB"


@contextlib.contextmanager
def out_of_memory_named(
    device: torch.device, doing: Callable[[], str], cures: Callable[[], Sequence[str]]
) -> Iterator[None]:
    """Replaces an out-of-memory error within the block by an error that lists what helps. Other errors pass.

    If a job has several processes, this error ends only its own process, and the launcher ends the other processes.

    Args:
        device: The device on which the block computes.
        doing: A function that describes the current work and its size.
        cures: A function that returns what helps.

    Raises:
        OutOfMemory: Memory ran out.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        memory = DeviceMemory.of(device)
        where = str(memory) if memory else "the CPU"
        raise OutOfMemory(f"{doing()}: out of memory on {where}. {advice(cures())}") from error


def advice(cures: Sequence[str]) -> str:
    """Returns one sentence with the cures.

    Example:
        >>> advice(["batch_size = 4", "fewer negatives"])
        'These changes save memory, the cheapest first: batch_size = 4; fewer negatives'
    """
    if not cures:
        return "Use a GPU with more memory"
    return f"These changes save memory, the cheapest first: {'; '.join(cures)}"


def loading_cures(model: BackboneSettings) -> list[str]:
    """Returns the cures for a model whose weights do not fit."""
    smaller = {"float32": "bfloat16", "bfloat16": "nf4"}.get(model.dtype)
    cures = ["end the other programs on this GPU (nvidia-smi)"]
    if smaller is not None:
        cures.append(f"model.dtype = '{smaller}'")
    return cures


def embedding_cures(model: BackboneSettings) -> list[str]:
    """Returns the cures for an embedding that does not fit, the cheapest first."""
    cures = pass_cures(model)
    if model.dtype == "float32":
        cures.insert(0, "model.dtype = 'bfloat16'")
    return cures


def pass_cures(model: BackboneSettings) -> list[str]:
    """Returns the settings for fewer tokens in a forward pass and fewer tokens in an image."""
    cures = [f"model.batch_tokens below {model.batch_tokens}"]
    if model.max_pixels > model.min_pixels or model.resize == "square":
        cures.append(f"model.max_pixels below {model.max_pixels}")
    return cures
