"""Texts that a model cannot take are counted and named before a job begins."""

from dataclasses import replace

import pytest

from tests.trainer.conftest import write_rows
from tests.trainer.test_embedder import quiet, run_settings
from trainer.backbone import open_backbone
from trainer.embed import embed_corpus
from trainer.settings import EmbedSettings
from trainer.train_embedder import train_embedder
from trainer.train_reranker import train_reranker
from trainer.training_settings import RerankerSettings
from unijudge.corpus import Content, Corpus, write_corpus
from unijudge.errors import DataError


def long_texts(corpus, folder):
    """Two items whose names are long, the second the longest."""
    items = [
        replace(item, text=f"{item.text} {'a' * 400 * (place - 2)}") if place in (3, 4) else item
        for place, item in enumerate(corpus.items)
    ]
    write_corpus(folder, items, list(corpus.queries), images=corpus.images, rejects=0, source="t")
    return Corpus(folder)


def test_texts_that_are_too_long_are_counted_before_anything_is_embedded(corpus, model, tmp_path):
    """Not at the item that is met after hours; and one that just fits is embedded."""
    long = long_texts(corpus, tmp_path / "c")
    lengths = [open_backbone(model).length(Content(item.text)) for item in long.items]
    assert lengths[4] == max(lengths)

    def embedding(most):
        there = model.model_copy(update={"max_tokens": most})
        embed_corpus(EmbedSettings(corpus=long.folder, out=tmp_path / "v", model=there), quiet)

    assert lengths[3] > 100
    with pytest.raises(
        DataError,
        match=r"c: 2 of 16 texts are longer than model\.max_tokens = 100\. The longest, in tokens: "
        rf"'{long.items[4].item_id}' {lengths[4]}, '{long.items[3].item_id}' {lengths[3]}\. "
        rf"Set model\.max_tokens = {lengths[4]}, or import without",
    ):
        embedding(100)
    with pytest.raises(DataError, match="1 of 16 texts are longer"):
        embedding(lengths[4] - 1)
    assert not (tmp_path / "v").exists()
    embedding(lengths[4])


@pytest.mark.parametrize("train", [train_embedder, train_reranker])
def test_rows_that_are_too_long_are_counted_before_a_run_begins(corpus, model, tmp_path, train):
    """Also those that no step would meet."""
    long = long_texts(corpus, tmp_path / "c")
    rows = write_rows(long, tmp_path / "rows")
    settings = run_settings(long, rows, model.model_copy(update={"max_tokens": 300}), tmp_path / "run", steps=1)
    if train is train_reranker:
        same = settings.model_dump(include={"corpus", "triples", "out", "negatives", "steps", "model"})
        settings = RerankerSettings(**same)
    with pytest.raises(DataError, match=r"rows: 8 of 8 rows have texts that are longer than model.max_tokens = 300"):
        train(settings, quiet)
    assert not (tmp_path / "run").exists()
