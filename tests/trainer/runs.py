"""A short training of the embedder."""

from trainer.models.settings import LoraSettings
from trainer.training.settings import EmbedderSettings


def quiet(*_):
    pass


def run_settings(corpus, triples, model, out, **changes):
    settings = EmbedderSettings(
        corpus=corpus.folder, triples=triples, out=out, model=model, num_negatives=7, max_steps=30, batch_size=4,
        learning_rate=3e-3, warmup_steps=3, save_steps=10, lora=LoraSettings(rank=8, alpha=16),
    )  # fmt: skip
    return settings.model_copy(update=changes)
