"""A GPU's memory that is full: an error with figures, and with the settings that help."""

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
    """Of one GPU, in bytes."""

    name: str
    total: int
    peak: int
    """The most that this process ever held in tensors."""
    free: int
    """What this process can still fill: free on the GPU, or held by torch and empty."""

    @classmethod
    def of(cls, device: torch.device) -> "DeviceMemory | None":
        """As it is now; None on a CPU."""
        if device.type != "cuda":
            return None
        free, total = torch.cuda.mem_get_info(device)
        empty = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        name = torch.cuda.get_device_properties(device).name
        return cls(name=name, total=total, peak=torch.cuda.max_memory_allocated(device), free=free + empty)

    def __str__(self) -> str:
        return f"{self.name} ({gib(self.total)}; tensors took {gib(self.peak)} at the peak, {gib(self.free)} are free)"


def gib(size: int) -> str:
    """Bytes as text.

    Example:
        >>> gib(3 * 2**29)
        '1.5 GiB'
    """
    return f"{size / GIB:.1f} GiB"


@contextlib.contextmanager
def out_of_memory_named(
    device: torch.device, doing: Callable[[], str], cures: Callable[[], Sequence[str]]
) -> Iterator[None]:
    """Makes an error of memory within the block one that says what helps. Other errors pass.

    Of several processes only this one knows: its error ends it, and the launcher ends the others.

    Args:
        device: Where the block computes.
        doing: Says what was going on, with its sizes.
        cures: What helps.

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
    """One sentence.

    Example:
        >>> advice(["batch_size = 4", "fewer negatives"])
        'What helps, the cheapest first: batch_size = 4; fewer negatives'
    """
    if not cures:
        return "Take a GPU with more memory"
    return f"What helps, the cheapest first: {'; '.join(cures)}"


def loading_cures(model: BackboneSettings) -> list[str]:
    """What makes a model's weights smaller."""
    smaller = {"float32": "bfloat16", "bfloat16": "nf4"}.get(model.dtype)
    cures = ["no other program on the same GPU (nvidia-smi)"]
    if smaller is not None:
        cures.append(f"model.dtype = '{smaller}'")
    return cures


def embedding_cures(model: BackboneSettings) -> list[str]:
    """What makes an embedding smaller."""
    cures = pass_cures(model)
    if model.dtype == "float32":
        cures.insert(0, "model.dtype = 'bfloat16'")
    return cures


def pass_cures(model: BackboneSettings) -> list[str]:
    """Fewer tokens in one pass, and fewer tokens of a picture."""
    cures = [f"model.batch_tokens below {model.batch_tokens}"]
    if model.max_pixels > model.min_pixels or model.resize == "square":
        cures.append(f"model.max_pixels below {model.max_pixels}")
    return cures
