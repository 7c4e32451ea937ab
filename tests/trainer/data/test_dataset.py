"""Training rows, and the messages about labels that cannot be compared."""

from dataclasses import replace

import pytest

from trainer.data.dataset import Examples, Pool
from unijudge.errors import TrainingError
from unijudge.formats.corpus import Corpus, Item, Query, write_corpus
from unijudge.formats.scores import Judged
from unijudge.formats.triples import (
    Negative,
    Scale,
    Triple,
    TripleManifest,
    finish_triples,
    read_triples,
    write_triples,
)
from unijudge.storage.files import read_json


def test_labels_of_two_judges_that_are_not_calibrated_are_named(corpus, triples, tmp_path, caplog):
    """In the first row, a used negative was judged by the second judge.

    In the second row, only an unused negative was judged by it.
    """
    rows = list(read_triples(triples, corpus.fingerprint))
    for number in (0, 1):
        rows[number].negatives[number] = replace(rows[number].negatives[number], judge=1)
    write_triples(tmp_path, rows)
    shape = read_json(triples / "triples.json", TripleManifest).model_copy(
        update={"scales": (Scale(), Scale())}
    )
    for calibrated, told in [(False, 1), (True, 0)]:
        finish_triples(tmp_path, shape.model_copy(update={"calibrated": calibrated}))
        caplog.clear()
        Examples(corpus, tmp_path, negatives=1)
        assert len(caplog.messages) == told
        assert all(
            f"1 of {len(rows)} rows have soft labels of two judges" in message
            for message in caplog.messages
        )


def test_more_negatives_than_are_stored_are_refused_with_both_cures(corpus, triples):
    with pytest.raises(
        TrainingError,
        match=r"stores 7\. Select with a larger `num_negatives`, or lower the `num_negatives`",
    ):
        Examples(corpus, triples, negatives=50)


def test_a_pool_holds_each_content_of_its_subset_or_of_the_corpus_once(tmp_path):
    """Row b has a negative from another subset, so its negatives come from all five contents."""
    pools = {"A": "a", "a ": "a", "B": "a", "C": "b", "D": "b", "E": "b"}
    items = [Item(name, (subset,), text=name) for name, subset in pools.items()]
    queries = [Query("q0", "a", ("A",), text="?"), Query("q1", "b", ("C",), text="!")]
    write_corpus(tmp_path, items, queries, images=tmp_path, rejects=0, source="t")
    corpus = Corpus(tmp_path)

    def pair(item_id):
        return Judged(item_id, corpus.items[corpus.row_of[item_id]].key, 0, None)

    chosen = [("q0", "a", "A", "B"), ("q1", "b", "C", "B")]
    rows = [
        Triple(query, subset, pair(right), [Negative(**vars(pair(wrong)))])
        for query, subset, right, wrong in chosen
    ]
    write_triples(tmp_path / "rows", rows)
    shape = {
        "corpus": corpus.fingerprint,
        "scores": "s",
        "rows": 2,
        "negatives_in_row": 1,
        "statistics": {},
    }
    finish_triples(tmp_path / "rows", TripleManifest(selection={"preset": "random"}, **shape))
    examples = Examples(corpus, tmp_path / "rows", negatives=1)
    assert examples.at_random
    assert examples.pools() == [Pool("a", 1, 2), Pool("b", 1, 5)]
    assert examples.without([0]).pools()[0] == Pool("a", 0, 2)
