"""The sentences of a card about an export's numbers, computed by hand from given vectors and log-odds."""

import numpy as np
import pytest

from trainer.export import agreement
from trainer.export.agreement import AgreementSample, bound, sample_of
from trainer.training.settings import EmbedderSettings, RerankerSettings
from unijudge.judging.prompt import Prompt
from unijudge.storage.files import file_sha256

ROWS = [None, None]
AGAINST = "on 2 rows of the run, against the run's base and adapter"


def test_vectors_are_compared_by_components_cosines_and_the_nearest():
    """Two queries with their positives and negatives.

    The second query moved by ½ and ¼, towards the negative of the first query.
    """
    of_run = np.array([[1, 0], [0, 1], [1, 0], [0, 1], [0.6, 0.8], [0.8, 0.6]], np.float32)
    exported = of_run.copy()
    exported[1] = [0.5, 0.7500009]
    assert AgreementSample(ROWS, None).said(of_run, exported, "float16") == (
        f"Measured at export in float16, {AGAINST}: components of vectors differ by at most 0.5, the cosine "
        "of two vectors of the same content is 0.750000 or more, and the nearest of 4 items is the same for 1 of 2 "
        "queries."
    )


def test_a_rerankers_log_odds_are_compared():
    said = AgreementSample(ROWS, Prompt()).said(
        np.float32([1, -1, 3, 0]), np.float32([1, -1.5, 3, 0.25]), "bfloat16"
    )
    assert said == f"Measured at export in bfloat16, {AGAINST}: log-odds differ by at most 0.5."


def test_a_bound_is_rounded_up_to_two_digits():
    assert [bound(gap) for gap in (0.5, 0.501, 2.0, 2.01, 3e-7, 0.0)] == [
        "0.5",
        "0.51",
        "2",
        "2.1",
        "3e-07",
        "0",
    ]


def fingerprints(corpus, triples):
    return {"the corpus": corpus.fingerprint, "the rows": file_sha256(triples / "triples.json")}


@pytest.mark.parametrize("settings", [EmbedderSettings, RerankerSettings])
def test_rows_are_spread_evenly_over_the_run(corpus, triples, tmp_path, monkeypatch, settings):
    """Of eight rows, three are chosen: the first, the last, and a row in the middle."""
    monkeypatch.setattr(agreement, "ROWS", 3)
    run = settings(corpus=corpus.folder, triples=triples, out=tmp_path / "run", num_negatives=1)
    sample = sample_of(run, fingerprints(corpus, triples))
    queries = [corpus.content(corpus.queries[row]) for row in (0, 3, 7)]
    assert [row.query for row in sample.rows] == queries
    assert sample.prompt == (run.prompt if settings is RerankerSettings else None)


def test_the_reason_for_a_missing_measurement_is_reported(corpus, triples, tmp_path):
    run = EmbedderSettings(
        corpus=corpus.folder, triples=triples, out=tmp_path / "run", num_negatives=1
    )
    assert "the corpus has changed" in sample_of(run, {"the corpus": "another"})
    for changes in (
        {"num_negatives": 99},
        {"triples": tmp_path / "gone"},
        {"corpus": tmp_path / "gone"},
    ):
        gone = sample_of(run.model_copy(update=changes), fingerprints(corpus, triples))
        assert "the training rows no longer exist or have changed" in gone
