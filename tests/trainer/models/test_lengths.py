"""Texts that are too long for a model are counted and named before a job begins."""

from dataclasses import replace

import numpy as np
import pytest

from tests.trainer.conftest import write_rows
from tests.trainer.runs import quiet, run_settings
from trainer.benchmarks.settings import BenchmarkSettings
from trainer.embedding.embed import embed_corpus
from trainer.embedding.settings import EmbedSettings
from trainer.evaluation.evaluate import evaluate
from trainer.evaluation.settings import EvaluateSettings
from trainer.models.backbone import open_backbone
from trainer.models.embedder import stream_of
from trainer.training.embedder import train_embedder
from trainer.training.reranker import train_reranker
from trainer.training.settings import RerankerSettings
from unijudge.content import Content
from unijudge.errors import DataError, TrainingError
from unijudge.formats.checks import check_vectors
from unijudge.formats.corpus import Corpus, write_corpus
from unijudge.formats.vectors import VectorFolder
from unijudge.modeling.chat_encoder import shared_prefix


def long_texts(corpus, folder):
    """Two items with long names. The second name is the longest."""
    items = [
        replace(item, text=f"{item.text} {'a' * 400 * (place - 2)}") if place in (3, 4) else item
        for place, item in enumerate(corpus.items)
    ]
    write_corpus(folder, items, list(corpus.queries), images=corpus.images, rejects=0, source="t")
    return Corpus(folder)


def test_texts_that_are_too_long_are_counted_before_anything_is_embedded(corpus, model, tmp_path):
    """The error comes at the start, not hours later at the item. A text that just fits is embedded."""
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
        rf"Set model\.max_tokens = {lengths[4]}, import without long texts, or set model\.on_long",
    ):
        embedding(100)
    with pytest.raises(DataError, match="1 of 16 texts are longer"):
        embedding(lengths[4] - 1)
    assert not (tmp_path / "v").exists()
    embedding(lengths[4])


@pytest.mark.parametrize("train", [train_embedder, train_reranker])
def test_rows_that_are_too_long_are_counted_before_a_run_begins(corpus, model, tmp_path, train):
    """This includes rows that no step of the training would use."""
    long = long_texts(corpus, tmp_path / "c")
    rows = write_rows(long, tmp_path / "rows")
    settings = run_settings(
        long, rows, model.model_copy(update={"max_tokens": 300}), tmp_path / "run", max_steps=1
    )
    if train is train_reranker:
        same = settings.model_dump(
            include={"corpus", "triples", "out", "num_negatives", "max_steps", "model"}
        )
        settings = RerankerSettings(**same)
    with pytest.raises(
        DataError, match=r"rows: 8 of 8 rows have texts that are longer than model.max_tokens = 300"
    ):
        train(settings, quiet)
    assert not (tmp_path / "run").exists()


def embedded(corpus, model, out, **changes):
    settings = EmbedSettings(
        corpus=corpus.folder, out=out, model=model.model_copy(update=changes), dtype="float32"
    )
    embed_corpus(settings, quiet)
    return VectorFolder(out, corpus)


def test_a_long_text_is_cut_and_its_template_stays(corpus, model):
    """The text keeps as many letters as fit, so one more letter would not fit.

    The picture and the template stay whole.
    """
    backbone = open_backbone(model.model_copy(update={"max_tokens": 60, "on_long": "truncate"}))
    picture = corpus.content(corpus.queries[0]).image
    one, other, cut = (
        stream_of(backbone, Content(text, picture)) for text in ("blue", "dog", "cat dog " * 300)
    )
    assert backbone.inputs.length(cut) == 60
    before, after = shared_prefix([one, other]), shared_prefix([one[::-1], other[::-1]])
    assert picture in one[:before]
    assert after > 3  # the end of the turn, and the begin of the answer
    assert (cut[:before], cut[-after:]) == (one[:before], one[-after:])


def test_a_cut_text_has_the_vector_of_its_beginning(corpus, model, tmp_path, caplog):
    long = long_texts(corpus, tmp_path / "c")
    vectors = embedded(long, model, tmp_path / "v", max_tokens=100, on_long="truncate").whole(
        "items"
    )
    assert (
        "2 of 16 texts are longer than model.max_tokens = 100. The ends of these texts are cut off"
        in caplog.text
    )
    others = embedded(corpus, model, tmp_path / "o").whole("items")
    assert np.allclose(
        np.delete(vectors, [3, 4], axis=0), np.delete(others, [3, 4], axis=0), atol=1e-5
    )
    assert not np.allclose(vectors[3], vectors[4])
    assert (
        check_vectors(tmp_path / "v", VectorFolder(tmp_path / "v", long).manifest) == "16 rows read"
    )


def test_a_skipped_text_has_no_vector_and_is_not_measured(corpus, model, tmp_path, caplog):
    """Two of eight colours have no vector. They are not candidates, and the two queries for them have no pairs."""
    long = long_texts(corpus, tmp_path / "c")
    folder = embedded(long, model, tmp_path / "v", max_tokens=100, on_long="skip")
    assert folder.skipped("items").tolist() == [3, 4]
    assert folder.skipped("queries").tolist() == []
    vectors = folder.whole("items")
    assert not vectors[[3, 4]].any()
    assert np.allclose(np.linalg.norm(np.delete(vectors, [3, 4], axis=0), axis=1), 1, atol=1e-5)
    assert check_vectors(tmp_path / "v", folder.manifest) == "16 rows read"
    report = evaluate(
        EvaluateSettings(corpus=long.folder, vectors=tmp_path / "v", out=tmp_path / "e")
    )
    measured = report.subsets["squares"]
    assert (measured["queries"], measured["candidates"], measured["not measured"]) == (6, 6, 2)
    assert "2 items and 0 queries were too long for the embedder" in caplog.text


def test_nothing_is_left_to_measure(corpus, model, tmp_path):
    folder = embedded(corpus, model, tmp_path / "v", max_tokens=1, on_long="skip")
    assert len(folder.skipped("items")) == len(corpus.items)
    with pytest.raises(DataError, match="no query has a vector and a positive with a vector"):
        evaluate(EvaluateSettings(corpus=corpus.folder, vectors=tmp_path / "v", out=tmp_path / "e"))


def test_an_unfinished_folder_resumes_with_another_setting(corpus, model, tmp_path):
    """The long text of an item with a picture is met in the middle of the job.

    No existing vector depends on the setting.
    """
    embedded(corpus, model, tmp_path / "v")
    part = tmp_path / "v" / "queries-00000.parquet"
    part.unlink()
    items = (tmp_path / "v" / "items-00000.parquet").read_bytes()
    vectors = embedded(corpus, model, tmp_path / "v", max_tokens=30, on_long="skip")
    assert (tmp_path / "v" / "items-00000.parquet").read_bytes() == items
    assert len(vectors.skipped("items")) == 0
    with pytest.raises(
        DataError,
        match=r"on_long differ: 'skip' became 'truncate'\)\. A folder has one treatment .*Give another output folder",
    ):
        embedded(corpus, model, tmp_path / "v", max_tokens=30, on_long="truncate")


def test_a_corrected_corpus_is_named(corpus, model, tmp_path):
    embedded(corpus, model, tmp_path / "v")
    long = long_texts(corpus, tmp_path / "c")
    with pytest.raises(DataError, match=r"corpus differ: .*\. The corpus was imported again"):
        embedded(long, model, tmp_path / "v")


@pytest.mark.parametrize("train", [train_embedder, train_reranker])
def test_rows_that_are_too_long_are_left_out_of_a_training(corpus, model, tmp_path, train, caplog):
    long = long_texts(corpus, tmp_path / "c")
    rows = write_rows(long, tmp_path / "rows")
    skipping = model.model_copy(update={"max_tokens": 300, "on_long": "skip"})
    settings = run_settings(long, rows, skipping, tmp_path / "run", max_steps=1)
    if train is train_reranker:
        same = settings.model_dump(
            include={"corpus", "triples", "out", "num_negatives", "max_steps", "model"}
        )
        settings = RerankerSettings(**same)
    # All other items are negatives of each row.
    with pytest.raises(TrainingError, match="all 8 rows are left out"):
        train(settings, quiet)
    assert not (tmp_path / "run").exists()


def test_an_embedder_is_trained_on_cut_texts(corpus, model, tmp_path, caplog):
    long = long_texts(corpus, tmp_path / "c")
    rows = write_rows(long, tmp_path / "rows")
    cutting = model.model_copy(update={"max_tokens": 100, "on_long": "truncate"})
    settings = run_settings(long, rows, cutting, tmp_path / "run", max_steps=1)
    train_embedder(settings, quiet)
    assert (
        "8 of 8 rows have texts that are longer than model.max_tokens = 100. The ends of"
        in caplog.text
    )
    changed = settings.model_copy(update={"model": cutting.model_copy(update={"max_tokens": 90})})
    with pytest.raises(DataError, match=r"model\.max_tokens was 100, is 90"):
        train_embedder(changed, quiet)


def test_rerankers_do_not_truncate_and_benchmarks_do_not_skip():
    """A judge never answers a truncated question, and a benchmark evaluates every query."""
    with pytest.raises(ValueError, match="on_long = 'truncate' is a setting of an embedder"):
        RerankerSettings(corpus="c", triples="t", out="o", model={"on_long": "truncate"})
    with pytest.raises(ValueError, match="a benchmark measures all of them"):
        BenchmarkSettings(root="r", model={"on_long": "skip"})
