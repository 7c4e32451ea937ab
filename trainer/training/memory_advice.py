"""The settings that reduce a training's need for memory, the cheapest first."""

from trainer.models.out_of_memory import pass_cures
from trainer.training.settings import EmbedderSettings, FinetuneSettings, RerankerSettings

FIRST_CHUNK = 8
"""The recommended `gradcache_chunk_size` for a training without GradCache."""


def training_cures(settings: FinetuneSettings, *, checkpointing: bool) -> list[str]:
    """Returns the settings that reduce a training's need for memory, without those already in use.

    Args:
        settings: The settings of the run.
        checkpointing: Whether the backward pass computes hidden states again.

    Example:
        >>> settings = FinetuneSettings(corpus="c", triples="t", out="o", num_negatives=1, model={"dtype": "nf4"})
        >>> training_cures(settings, checkpointing=False)[1]
        'batch_size = 4 with gradient_accumulation_steps = 2 (the same number of rows per update)'
    """
    cures = []
    if not checkpointing:
        cures.append("gradient_checkpointing = true")
    if settings.model.dtype == "float32":
        cures.append("model.dtype = 'bfloat16'")
    cures += _row_cures(settings)
    if settings.num_negatives > 1:
        cures.append(f"num_negatives below {settings.num_negatives}")
    if (
        isinstance(settings, RerankerSettings)
        and settings.loss.listwise
        and settings.loss.list_size_max > 2
    ):
        cures.append(f"loss.list_size_max below {settings.loss.list_size_max}")
    # Without checkpointing, the tensors of all passes of a batch are kept, so smaller passes save nothing.
    whole_batch_is_kept = not checkpointing and not _cached(settings)
    cures += pass_cures(settings.model)[1:] if whole_batch_is_kept else pass_cures(settings.model)
    if settings.model.dtype == "bfloat16":
        cures.append("model.dtype = 'nf4'")
    return cures


def _cached(settings: FinetuneSettings) -> int:
    return settings.gradcache_chunk_size if isinstance(settings, EmbedderSettings) else 0


def _row_cures(settings: FinetuneSettings) -> list[str]:
    """Returns the setting for smaller batches, or for smaller chunks if the rows of a batch interact."""
    chunk = _cached(settings)
    if isinstance(settings, EmbedderSettings) and settings.loss.in_batch_weight:
        if chunk == 1:
            return []
        return [f"gradcache_chunk_size = {chunk // 2 if chunk else FIRST_CHUNK}"]
    if settings.batch_size == 1:
        return []
    parts = 2 if settings.batch_size % 2 == 0 else settings.batch_size
    fewer, more = settings.batch_size // parts, settings.gradient_accumulation_steps * parts
    return [
        f"batch_size = {fewer} with gradient_accumulation_steps = {more} (the same number of rows per update)"
    ]
