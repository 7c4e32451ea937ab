"""Labels and overrides apply to a question and a content, not to a single row. Both implementations agree."""

import itertools
import json
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from miner.importers.building.build import build
from miner.importers.building.published_scores import PublishedScores
from miner.importers.sentence_transformers import read_tuples
from miner.selection.annotations import WORDS, Words
from miner.selection.overrides import Override
from miner.selection.select import select
from miner.selection.settings import SelectSettings
from miner.sweep.settings import SweepSettings
from miner.sweep.sweep import sweep
from tests.miner.rows import judged, override_file, score_folder
from unijudge.errors import DataError
from unijudge.formats.corpus import Corpus, Item, Query, write_corpus
from unijudge.formats.scores import JudgedQuery
from unijudge.formats.triples import read_triples

TEXTS = {
    "cat": "a cat",
    "CAT": "A  Cat",
    "kitten": "a kitten",
    "KITTEN": "a Kitten ",
    "dog": "a dog",
    "cow": "a cow",
}


@pytest.fixture
def world(tmp_path):
    """q0 and q1 have the same question. The positive of q0 is the cat, and the positive of q1 is the kitten."""
    items = [Item(name, ("s",), text=text) for name, text in TEXTS.items()]
    queries = [
        Query("q0", "s", ("cat",), text="who meows?"),
        Query("q1", "s", ("kitten",), text="Who meows? "),
        Query("q2", "s", ("dog",), text="who barks?"),
    ]
    write_corpus(tmp_path / "corpus", items, queries, images=tmp_path, rejects=0, source="t")
    corpus = Corpus(tmp_path / "corpus")
    candidates = {
        "q0": {"KITTEN": 0.2, "dog": 0.3, "CAT": 0.1, "cow": 0.4},
        "q1": {"cat": 0.2, "dog": 0.3, "cow": None},
        "q2": {"cat": 0.1, "CAT": 0.2, "cow": 0.7},
    }
    rows = [
        JudgedQuery(
            query.query_id, "s", query.key, [judged(query.positive_ids[0], 0.9)],
            [judged(name, p, rank) for rank, (name, p) in enumerate(candidates[query.query_id].items())],
        )
        for query in queries
    ]  # fmt: skip
    score_folder(tmp_path / "scores", corpus, rows)
    numbers = itertools.count()

    def run(*words, **changes):
        """Query id → (negatives, additional positives) of the kept rows, and the statistics."""
        number = next(numbers)
        given = {
            "scores": tmp_path / "scores",
            "corpus": corpus.folder,
            "num_negatives": 3,
        } | changes
        if words:
            given["overrides"] = override_file(tmp_path / f"o{number}.json", corpus, *words)
        settings = SelectSettings(**given, stride=1, out=tmp_path / f"t{number}")
        table = select(settings)
        del table["extra positives offered"]
        (point,) = sweep(
            SweepSettings(**given, presets=("unime-v2",), betas=((0.1, 0.01, 0.001),), strides=(1,))
        ).points
        assert point.statistics == pytest.approx(table, abs=1.1e-4)
        rows = {
            row.query_id: (
                list(dict.fromkeys(one.item_id for one in row.negatives)),
                [one.item_id for one in row.extra_positives],
            )
            for row in read_triples(settings.out, corpus.fingerprint)
        }
        return rows, table

    return run


def test_another_rows_positive_of_the_same_question_is_no_negative_in_any_spelling(world):
    rows, table = world()
    assert rows == {"q0": (["dog", "cow"], []), "q1": (["dog"], []), "q2": (["cat", "cow"], [])}
    assert table["candidates"] == 2 + 2 + 2


def test_an_override_applies_to_the_question_and_the_content(world):
    rows, _ = world(("q0", "dog", "match"), ("q2", "CAT", "match"))
    assert rows["q0"] == (["cow"], ["dog"])
    assert "q1" not in rows, "the dog answers this row's question too"
    assert rows["q2"] == (["cow"], ["cat"]), "in the other spelling, once"
    rows, table = world(("q0", "cow", "negative"))
    assert rows["q1"] == (["dog", "cow"], []), "without a verdict in this row"
    assert rows["q2"] == (["cat", "cow"], []), "another question"
    assert table["expected false negatives (at face value)"] == pytest.approx(
        0.3 + 0 + 0.3 + 0 + 0.1 + 0.7
    )


def test_a_denied_positive_is_not_a_positive_of_the_question(world):
    rows, table = world(("q1", "kitten", "negative"))
    assert table["left out by a person"] == 1
    assert rows["q0"][0] == ["KITTEN", "dog", "cow"], "so it may be a negative of the other row"


def test_only_the_row_that_is_named_is_left_out(world):
    rows, _ = world(("q0", None, "drop"))
    assert set(rows) == {"q1", "q2"}


def test_overrides_that_contradict_by_content_are_refused(world, tmp_path):
    message = (
        r"query 'q1', item 'dog' is 'negative', but query 'q0' asks the same question, and its item 'dog' of the same "
        r"content is 'match'\. Remove one of these two overrides from the file"
    )
    with pytest.raises(DataError, match=message):
        world(("q0", "dog", "match"), ("q1", "dog", "negative"))


def test_published_rows_with_the_same_question_do_not_use_each_others_positives_as_negatives(
    tmp_path,
):
    """As in published rows, the negative of each row is the positive of the other row."""
    rows = [
        {
            "query": "who meows?",
            "positive": "a cat",
            "negative_1": "a kitten",
            "negative_2": "a cow",
        },
        {
            "query": "who meows?",
            "positive": "a kitten",
            "negative_1": "A cat",
            "negative_2": "a cow",
        },
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row | {"scores": [0.9, 0.2, 0.1]}) + "\n" for row in rows))
    build(
        read_tuples(file), images=tmp_path, out=tmp_path / "corpus", source="t", max_rejects=0,
        published=PublishedScores(tmp_path / "scores", file),
    )  # fmt: skip
    corpus = Corpus(tmp_path / "corpus")
    settings = SelectSettings(
        scores=tmp_path / "scores", corpus=corpus.folder, out=tmp_path / "t", num_negatives=2
    )
    select(settings)
    for row in read_triples(settings.out, corpus.fingerprint):
        assert {corpus.items[corpus.row_of[one.item_id]].text for one in row.negatives} == {"a cow"}


def test_rows_with_repeated_negatives_are_reported_with_a_num_negatives_that_most_rows_have(
    world, caplog
):
    """q0 and q2 have two distinct negatives, and q1 has one."""
    world(num_negatives=3)
    (warning,) = caplog.messages
    assert (
        "3 of 3 rows have fewer than num_negatives = 3 distinct negatives and are filled up with"
        in warning
    )
    assert "nine rows of ten have at least 1 distinct negatives" in warning
    caplog.clear()
    world(num_negatives=1)
    assert not caplog.messages


def test_a_persons_negative_survives_a_margin_that_is_larger_than_the_positives_score(tmp_path):
    """σ⁺ = .05 and β = .1, so the cut is below 0. A negative of a person still survives, and nothing else survives."""
    items = [Item(name, ("s",), text=name) for name in ("p", "c0", "c1")]
    write_corpus(
        tmp_path / "c", items, [Query("q", "s", ("p",), text="?")], images=tmp_path, rejects=0, source="t"
    )  # fmt: skip
    corpus = Corpus(tmp_path / "c")
    row = JudgedQuery(
        "q",
        "s",
        corpus.queries[0].key,
        [judged("p", 0.05)],
        [judged("c0", 0.01, 0), judged("c1", 0.9, 1)],
    )
    given = {
        "scores": score_folder(tmp_path / "scores", corpus, [row]), "corpus": corpus.folder, "num_negatives": 1,
        "overrides": override_file(tmp_path / "o.json", corpus, ("q", "c1", "negative")),
    }  # fmt: skip
    table = select(SelectSettings(**given, out=tmp_path / "t"))
    (made,) = read_triples(tmp_path / "t", corpus.fingerprint)
    assert [(one.item_id, one.overruled) for one in made.negatives] == [("c1", True)]
    assert made.negatives[0].beta == pytest.approx(0.1)
    del table["extra positives offered"]
    (point,) = sweep(
        SweepSettings(**given, presets=("unime-v2",), betas=((0.1, 0.01, 0.001),))
    ).points
    assert point.statistics == pytest.approx(table, abs=1.1e-4)


def test_a_missing_id_is_not_read_as_another_item(tmp_path):
    """A person denies the last item for q0, and confirms it for q1.

    A missing id is neither the last item nor a duplicate.
    """
    items = [Item(name, ("s",), text=name) for name in ("first", "last")]
    queries = [Query("q0", "s", ("first",), text="one?"), Query("q1", "s", ("last",), text="two?")]
    write_corpus(tmp_path / "corpus", items, queries, images=tmp_path, rejects=0, source="t")
    denied = [Override(query_id="q0", item_id="last", verdict="negative")]
    words = Words(Corpus(tmp_path / "corpus"), SimpleNamespace(retrieval={}), denied, None)
    names = ["gone", "last", "lost", "gone", "last"]
    codes = words.codes(np.arange(2), np.repeat(np.arange(2), 5), pa.array(names + names))
    first, second = [None, "negative", None, None, "twin"], [None, "known", None, None, "twin"]
    assert [WORDS[code] for code in codes.tolist()] == [*first, *second]
    codes = words.codes(
        np.arange(2), np.repeat(np.arange(2), 5), pa.array(names + names), positives=True
    )
    assert [WORDS[code] for code in codes.tolist()] == [
        None,
        "negative",
        None,
        None,
        "negative",
        *[None] * 5,
    ]
