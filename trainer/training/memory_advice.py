"""Which settings make a training smaller, the cheapest first."""

from trainer.models.out_of_memory import pass_cures
from trainer.training.settings import EmbedderSettings, FinetuneSettings, RerankerSettings

FIRST_CHUNK = 8
"""What is advised for `gradcache_chunk_size` where it is off."""


def training_cures(settings: FinetuneSettings, *, checkpointing: bool) -> list[str]:
    """What makes a training smaller, of what is not set already.

    Args:
        settings: The run.
        checkpointing: Whether hidden states are computed again in the backward pass.

    Example:
        >>> settings = FinetuneSettings(corpus="c", triples="t", out="o", num_negatives=1, model={"dtype": "nf4"})
        >>> training_cures(settings, checkpointing=False)[1]
        'batch_size = 4 with gradient_accumulation_steps = 2 (as many rows an update)'
    """
    cures = []
    if not checkpointing:
        cures.append("gradient_checkpointing = true")
    if settings.model.dtype == "float32":
        cures.append("model.dtype = 'bfloat16'")
    cures += _row_cures(settings)
    if settings.num_negatives > 1:
        cures.append(f"num_negatives below {settings.num_negatives}")
    if isinstance(settings, RerankerSettings) and settings.loss.listwise and settings.loss.list_size_max > 2:
        cures.append(f"loss.list_size_max below {settings.loss.list_size_max}")
    # Without checkpointing a whole batch is kept, in however many passes it is run.
    whole_batch_is_kept = not checkpointing and not _cached(settings)
    cures += pass_cures(settings.model)[1:] if whole_batch_is_kept else pass_cures(settings.model)
    if settings.model.dtype == "bfloat16":
        cures.append("model.dtype = 'nf4'")
    return cures


def _cached(settings: FinetuneSettings) -> int:
    return settings.gradcache_chunk_size if isinstance(settings, EmbedderSettings) else 0


def _row_cures(settings: FinetuneSettings) -> list[str]:
    """Fewer rows at once; where rows interact, fewer inputs at once."""
    chunk = _cached(settings)
    if isinstance(settings, EmbedderSettings) and settings.loss.in_batch_weight:
        if chunk == 1:
            return []
        return [f"gradcache_chunk_size = {chunk // 2 if chunk else FIRST_CHUNK}"]
    if settings.batch_size == 1:
        return []
    parts = 2 if settings.batch_size % 2 == 0 else settings.batch_size
    fewer, more = settings.batch_size // parts, settings.gradient_accumulation_steps * parts
    return [f"batch_size = {fewer} with gradient_accumulation_steps = {more} (as many rows an update)"]
