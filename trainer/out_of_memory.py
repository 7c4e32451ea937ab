"""A GPU's memory that is full: an error with figures, and with the settings that help. Cheapest first."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from trainer.settings import BackboneSettings
from trainer.training_settings import EmbedderSettings, FinetuneSettings, RerankerSettings
from unijudge.errors import OutOfMemory
from unijudge.memory import is_out_of_memory

FIRST_CHUNK = 8
"""What is advised for `cache_chunk` where it is off."""
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
    cures = _pass_cures(model)
    if model.dtype == "float32":
        cures.insert(0, "model.dtype = 'bfloat16'")
    return cures


def training_cures(settings: FinetuneSettings, *, checkpointing: bool) -> list[str]:
    """What makes a training smaller, of what is not set already.

    Args:
        settings: The run.
        checkpointing: Whether hidden states are computed again in the backward pass.

    Example:
        >>> settings = FinetuneSettings(corpus="c", triples="t", out="o", negatives=1, model={"dtype": "nf4"})
        >>> training_cures(settings, checkpointing=False)[:2]
        ['gradient_checkpointing = true', 'batch_size = 4 with accumulate = 2 (as many rows an update)']
    """
    cures = []
    if not checkpointing:
        cures.append("gradient_checkpointing = true")
    if settings.model.dtype == "float32":
        cures.append("model.dtype = 'bfloat16'")
    cures += _row_cures(settings)
    if settings.negatives > 1:
        cures.append(f"negatives below {settings.negatives}")
    if isinstance(settings, RerankerSettings) and settings.loss.listwise and settings.loss.list_size_max > 2:
        cures.append(f"loss.list_size_max below {settings.loss.list_size_max}")
    # Without checkpointing a whole batch is kept, in however many passes it is run.
    whole_batch_is_kept = not checkpointing and not _cached(settings)
    cures += _pass_cures(settings.model)[1:] if whole_batch_is_kept else _pass_cures(settings.model)
    if settings.model.dtype == "bfloat16":
        cures.append("model.dtype = 'nf4'")
    return cures


def _cached(settings: FinetuneSettings) -> int:
    return settings.cache_chunk if isinstance(settings, EmbedderSettings) else 0


def _row_cures(settings: FinetuneSettings) -> list[str]:
    """Fewer rows at once; where rows interact, fewer inputs at once."""
    chunk = _cached(settings)
    if isinstance(settings, EmbedderSettings) and settings.loss.in_batch_weight:
        if chunk == 1:
            return []
        return [f"cache_chunk = {chunk // 2 if chunk else FIRST_CHUNK}"]
    if settings.batch_size == 1:
        return []
    parts = 2 if settings.batch_size % 2 == 0 else settings.batch_size
    fewer, more = settings.batch_size // parts, settings.accumulate * parts
    return [f"batch_size = {fewer} with accumulate = {more} (as many rows an update)"]


def _pass_cures(model: BackboneSettings) -> list[str]:
    """Fewer tokens in one pass, and fewer tokens of a picture."""
    cures = [f"model.batch_tokens below {model.batch_tokens}"]
    if model.max_pixels > model.min_pixels or model.resize == "square":
        cures.append(f"model.max_pixels below {model.max_pixels}")
    return cures
