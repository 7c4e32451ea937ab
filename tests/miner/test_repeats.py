"""Rows that share a question or an id: the results stay the same, and the counted work grows linearly with the rows."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miner.estimate.pair_counts import count_pairs
from miner.importers.building import ledger
from miner.importers.building.build import build
from miner.importers.building.ledger import Answers
from miner.importers.pairs import read_pairs
from miner.retrieval.pools import Allowed, Pools
from miner.scoring.job import score
from miner.scoring.plan import open_candidate_input, pair_source_of
from miner.scoring.score_cache import ScoreCache
from miner.selection.select import select
from miner.selection.settings import SelectSettings
from miner.settings import ScoreSettings
from tests.miner.conftest import embed, quiet, serving
from tests.miner.counting import Counting
from tests.miner.label_corpus import label_corpus
from unijudge.formats.corpus import Corpus, Item
from unijudge.formats.scores import ScoreManifest, read_scores
from unijudge.formats.triples import read_triples
from unijudge.storage.files import read_json


@pytest.mark.parametrize("allow_query_image", [False, True])
def test_the_excluded_items_of_a_question_are_found_once(tmp_path, allow_query_image, monkeypatch):
    corpus, looked = label_corpus(tmp_path, 50), []
    monkeypatch.setattr(
        corpus, "positives", lambda row, find=corpus.positives: looked.append(row) or find(row)
    )
    pools = Pools(corpus, "global", allow_query_image=allow_query_image)
    found = [pools.excluded(row) for row in range(70)]
    assert all(one is found[0] for one in found[:50])
    assert found[0].tolist() == list(range(50))
    assert [one.tolist() for one in found[50:]] == [[row] for row in range(50, 70)]
    assert len(looked) <= 3 * 70


@settings(deadline=None, max_examples=60)
@given(st.sets(st.integers(0, 30)), st.sets(st.integers(0, 30)))
def test_the_allowed_items_are_the_pool_without_the_excluded_items(pool, excluded):
    allowed = Allowed(np.array(sorted(pool), np.int64), np.array(sorted(excluded), np.int64))
    assert allowed.take(range(len(allowed))).tolist() == sorted(pool - excluded)


def test_random_draws_are_never_excluded_and_never_twice(tmp_path):
    corpus = label_corpus(tmp_path, 40)
    embed(corpus, tmp_path / "vectors")
    places = {"corpus": corpus.folder, "vectors": tmp_path / "vectors", "out": tmp_path / "scores"}
    with serving(Counting()) as url:
        score(ScoreSettings(**places, service=url, k=5), quiet)
    select(
        SelectSettings(
            corpus=corpus.folder, scores=tmp_path / "scores", out=tmp_path / "t", preset="random"
        )
    )
    for row in read_triples(tmp_path / "t", corpus.fingerprint):
        asked = corpus.queries[corpus.query_row_of[row.query_id]].text
        texts = {corpus.items[corpus.row_of[one.item_id]].text for one in row.negatives}
        assert len(texts) == 10
        assert not any(text.startswith("right") for text in texts) or asked != "what is it?"
        assert asked.replace("find", "own") not in texts


def test_an_import_writes_each_item_once(tmp_path, monkeypatch):
    """The data that a row adds to the ledger does not grow with the rows that share its id."""
    written = []
    make = json.dumps
    monkeypatch.setattr(
        ledger.json, "dumps", lambda value, **more: written.append(value) or make(value, **more)
    )
    rows = [
        {"query_id": "q", "query_text": "all", "positive_text": f"right {number % 90}"}
        for number in range(100)
    ]
    (tmp_path / "rows.jsonl").write_text(
        "".join(f"{json.JSONEncoder().encode(row)}\n" for row in rows)
    )
    build(
        read_pairs(tmp_path / "rows.jsonl"),
        images=tmp_path,
        out=tmp_path / "c",
        source="t",
        max_rejects=0,
    )
    answers = [value for value in written if isinstance(value, dict) and "positives" in value]
    assert [len(value["positives"]) for value in answers] == [1] * 100
    corpus = Corpus(tmp_path / "c")
    assert len(corpus.queries) == 1
    assert [corpus.items[row].text for row in corpus.positives(0)] == [
        f"right {number}" for number in range(90)
    ]


def test_the_answers_of_several_rows_are_joined_in_order():
    one = Answers(["a", "b"], [3, 1], {"a": 0.9, "x": 0.1})
    two = Answers(["b", "c"], [1, 2], {"x": 0.2, "c": 0.8})
    assert Answers.joined([one, two]) == Answers(
        ["a", "b", "c"], [3, 1, 2], {"a": 0.9, "x": 0.1, "c": 0.8}
    )
    assert Answers.joined([Answers(["a"]), Answers(["a"])]) == Answers(["a"])
    assert Answers.joined([one]) is one


def test_a_count_looks_up_only_pairs_that_may_be_known(job, corpus, monkeypatch):
    """Two rows have the same question. The pairs of the other rows are counted without reading an item."""
    with serving(Counting()) as url:
        score(job(url), quiet)
    questions = pair_source_of(job("x"), corpus, open_candidate_input(job("x"), corpus))
    looked = []
    key = Item.key.fget
    monkeypatch.setattr(
        Item, "key", property(lambda item: looked.append(item.item_id) or key(item))
    )
    tally = count_pairs(corpus, questions, ScoreCache([], None), 10)
    assert tally.to_ask(10) == tally.pairs(10) - len(shared(job("x").out))
    assert not looked


def shared(out):
    """The pairs of the second of two rows that the first row also has."""
    first, *_, last = read_scores(out)
    pairs = [{one.item_id for one in [*row.positives, *row.candidates]} for row in (first, last)]
    assert first.query_key == last.query_key
    return pairs[0] & pairs[1]


def test_the_known_scores_of_a_question_are_read_once(job):
    with serving(Counting()) as url:
        score(job(url), quiet)
    rows = list(read_scores(job("x").out))
    judge = read_json(job("x").out / "manifest.json", ScoreManifest).judge
    known = ScoreCache([job("x").out], judge)
    found = known.of(rows[0].query_key)
    assert found is known.of(rows[-1].query_key)
    assert set(found) == {
        one.item_key for row in (rows[0], rows[-1]) for one in [*row.positives, *row.candidates]
    }
