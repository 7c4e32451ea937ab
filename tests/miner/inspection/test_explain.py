"""The page's reason for each candidate agrees with the selection.

Its sample of rows and a person's overrides are tested too.
"""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miner.inspection.explain import explain, outcome, views_of, with_difference
from miner.inspection.sample import ORDER, UNREMARKABLE, Sample
from miner.inspection.settings import InspectSettings
from miner.selection.negatives import select_negatives
from miner.selection.overrides import Override, read_overrides
from miner.selection.resolve import TOLERANCE, Case
from tests.miner.mined import judged
from unijudge.errors import DataError, SettingsError
from unijudge.formats.corpus import Item
from unijudge.formats.scores import Judged, JudgedQuery
from unijudge.formats.triples import Scale
from unijudge.settings import load_settings

ANYWHERE = Path("unused")


def settings(preset="unime-v2", **changes):
    return InspectSettings(scores=ANYWHERE, corpus=ANYWHERE, out=ANYWHERE, preset=preset, **changes)


def row(positives, scores):
    items = [Item(f"c{rank}", ("s",), str(rank)) for rank in range(len(scores))]
    candidates = [
        judged(item, score, rank) if score is not None
        else Judged(item.item_id, item.key, rank, 0.5, error="too_long: x")
        for rank, (item, score) in enumerate(zip(items, scores, strict=True))
    ]  # fmt: skip
    known = [
        Judged("p", bytes(16), None, 0.5, error="bad_image: x") if score is None
        else judged(Item(f"p{score}", ("s",), "p"), score)
        for score in positives
    ]  # fmt: skip
    return JudgedQuery("q", "s", bytes(16), known, candidates)


def rounded(value):
    return None if value is None else round(value, 4)


def explanation_of(query, chosen_by):
    choice = select_negatives(Case(query), chosen_by)
    positives, candidates = explain(choice, chosen_by)
    alphas = [rounded(e.alpha) for e in candidates]
    return (
        choice,
        [(e.fate, e.reason) for e in positives],
        [(e.fate, e.reason) for e in candidates],
        alphas,
    )


def test_every_decision_has_a_reason_in_words():
    made = settings(num_negatives=2, stride=2)
    choice, positives, candidates, alphas = explanation_of(
        row([0.71, 0.2], [0.62, 0.1, None, 0.2, 0.3]), made
    )
    assert positives == [
        ("positive", "as labelled"),
        ("positive", "not the best of the row's positives; suspect: score 0.200 < 0.5"),
    ]
    assert candidates == [
        ("dropped", "score 0.620 > 0.710 − 0.1"),
        ("chosen", "score 0.100 ≤ 0.710 − 0.1; negative 1"),
        ("error", "no verdict: too_long: x"),
        ("kept", "score 0.200 ≤ 0.710 − 0.1"),
        ("chosen", "score 0.300 ≤ 0.710 − 0.1; negative 2"),
    ]
    assert alphas == [0.61, 0.61, None, 0.61, 0.61]
    assert outcome(choice, 2) == "2 negatives, β = 0.1"


def test_a_relaxed_margin_a_fallback_and_an_empty_row_are_explained():
    choice, _, candidates, _ = explanation_of(row([0.5], [0.45, 0.6]), settings())
    assert candidates == [
        ("chosen", "score 0.450 ≤ 0.500 − 0.01 (β relaxed from 0.1); negative 1"),
        ("dropped", "score 0.600 > 0.500 − 0.01 (β relaxed from 0.1)"),
    ]
    assert outcome(choice, 10) == "1 negative of 10, repeated to fill the row, β = 0.01"
    choice, _, candidates, _ = explanation_of(row([0.3], [0.6]), settings("paper"))
    assert candidates == [
        ("chosen", "score 0.600 > 0.300 − 0.01; but drawn at random as negative 1")
    ]
    assert outcome(choice, 10) == "1 negative, drawn at random: no candidate survived"
    choice, _, _, _ = explanation_of(row([0.3], [0.6]), settings())
    assert outcome(choice, 10) == "left out: every candidate is dropped as a false negative"


def test_without_a_judge_or_without_a_judged_positive_nothing_is_compared():
    _, _, candidates, alphas = explanation_of(
        row([0.5], [0.9, 0.1]), settings("topk", num_negatives=1)
    )
    assert candidates == [
        ("chosen", "negative 1, chosen without the judge"),
        ("kept", "not taken by the walk"),
    ]
    assert alphas == [None, None]
    choice, positives, candidates, _ = explanation_of(row([None], [0.1]), settings())
    assert positives == [("error", "no verdict: bad_image: x")]
    assert candidates == [("kept", "not compared: no positive has a verdict")]
    assert outcome(choice, 10) == "left out: no positive has a verdict"
    assert (
        outcome(select_negatives(Case(row([0.5], [None])), settings()), 10)
        == "left out: no candidate may be chosen"
    )


@given(
    st.lists(st.floats(0.01, 0.99) | st.none(), min_size=1, max_size=3),
    st.lists(st.floats(0.01, 0.99) | st.none(), max_size=30),
    st.sampled_from(["unime-v2", "paper", "topk", "cyclic"]),
    st.sampled_from([1.0, 1.05]),
)
def test_the_explanation_agrees_with_the_selection(positives, scores, preset, divisor):
    made = settings(preset)
    query = row(positives, scores)
    choice = select_negatives(Case(query, scales=(Scale(slope=1 / divisor),)), made)
    _, candidates = explain(choice, made)
    fates = [explained.fate for explained in candidates]
    chosen = {explained.judged.item_id for explained in candidates if explained.fate == "chosen"}
    assert chosen == (
        {negative.item_id for negative in choice.triple.negatives} if choice.triple else set()
    )
    fallback = sum("drawn at random" in explained.reason for explained in candidates)
    assert fates.count("dropped") + fallback == choice.dropped
    assert fates.count("error") == scores.count(None)
    assert [explained.judged for explained in candidates] == query.candidates


@given(st.floats(0.001, 0.999), st.floats(0.001, 0.999), st.sampled_from([0.1, 0.01, 0.001]))
def test_the_shown_numbers_satisfy_the_shown_comparison(score, positive, beta):
    _, left, sign, right, _, _ = with_difference(score, positive, beta).split()
    holds = float(left) > round(float(right) - beta, 12)
    if abs(score - (positive - beta)) > 2 * TOLERANCE:
        assert holds == (sign == ">") == (score > positive - beta)


def test_views_list_unusual_rows():
    def views(query, **changes):
        made = settings(**changes)
        return views_of(select_negatives(Case(query), made), made.num_negatives)

    assert views(row([0.9], [0.1, 0.2]), num_negatives=2) == []
    assert views(row([0.9], [0.85, 0.2]), num_negatives=2) == [
        "suspected false negatives",
        "under-filled",
    ]
    assert views(row([0.4], [0.2, 0.2]), num_negatives=2) == ["suspect positives", "ties"]
    assert views(row([0.4], [0.6])) == [
        "suspected false negatives",
        "suspect positives",
        "left out",
    ]
    assert views(row([None], [0.6])) == ["left out", "errors"]


def test_a_sample_prefers_rare_rows_in_known_proportions():
    sample = Sample(60, seed=0)
    for number in range(3000):
        views = ["ties"] if number % 3 == 0 else []
        views += ["errors"] if number in (5, 300, 2999) else []
        sample.add(f"q{number}", views, number)
    assert sample.read == {"errors": 3, "ties": 999, UNREMARKABLE: 1998}
    assert sample.shown["errors"] == 3
    assert {sample.shown["ties"], sample.shown[UNREMARKABLE]} <= {28, 29}
    assert sample.rows() == sorted(sample.rows())
    assert {5, 300, 2999} <= set(sample.rows())
    again = Sample(60, seed=1)
    for number in range(3000):
        again.add(f"q{number}", [], number)
    assert set(again.rows()) != set(sample.rows())


@given(st.lists(st.sampled_from([*ORDER, UNREMARKABLE]), max_size=60), st.integers(1, 30))
def test_a_sample_has_a_limit_that_its_groups_share_fairly(files, size):
    sample = Sample(size, seed=3)
    for number, file in enumerate(files):
        sample.add(str(number), [] if file == UNREMARKABLE else [file], number)
        assert sample.shown.total() == min(size, number + 1)
    for file in set(files):
        # If a group is not shown completely, no group shows more than one row more than this group.
        if sample.shown[file] < sample.read[file]:
            assert max(sample.shown.values()) <= sample.shown[file] + 1


def test_random_negatives_are_not_candidates():
    with pytest.raises(
        SettingsError, match="preset: value error, random draws from the whole pool"
    ):
        load_settings(InspectSettings, None, ["scores=a", "corpus=b", "out=c", "preset=random"])


def write(path, overrides, corpus="c" * 64):
    path.write_text(json.dumps({"version": 1, "corpus": corpus, "overrides": overrides}))
    return path


def test_overrides_are_read(tmp_path):
    overrides = [
        {"query_id": "q", "item_id": "i", "verdict": "match", "note": "the same dog"},
        {"query_id": "q", "item_id": "i", "verdict": "match", "note": ""},
        {"query_id": "q", "item_id": None, "verdict": "drop"},
    ]
    read = read_overrides(write(tmp_path / "o.json", overrides), "c" * 64)
    assert read.overrides == [
        Override(query_id="q", item_id="i", verdict="match", note="the same dog"),
        Override(query_id="q", item_id="i", verdict="match"),
        Override(query_id="q", item_id=None, verdict="drop"),
    ]


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (
            [("q", "i", "match"), ("q", "i", "negative")],
            "query 'q', item 'i' is both 'match' and 'negative'. Remove one",
        ),
        ([("q", "i", "drop")], "drop applies to a whole row"),
        ([("q", None, "match")], "match or negative to an item"),
        ([("q", "i", "maybe")], r"overrides\.0\.verdict"),
    ],
)
def test_contradictory_overrides_are_refused(tmp_path, overrides, reason):
    path = write(
        tmp_path / "o.json",
        [dict(zip(("query_id", "item_id", "verdict"), one, strict=True)) for one in overrides],
    )
    with pytest.raises(DataError, match=reason):
        read_overrides(path, "c" * 64)


def test_overrides_of_another_corpus_are_refused(tmp_path):
    with pytest.raises(
        DataError,
        match=r"was made for corpus dddddddddddd, not for cccccccccccc\. Give the file that",
    ):
        read_overrides(write(tmp_path / "o.json", [], "d" * 64), "c" * 64)


def seen(query, chosen_by, **overrides):
    choice = select_negatives(Case(query, **overrides), chosen_by)
    _, candidates = explain(choice, chosen_by)
    return [(e.fate, rounded(e.score), e.reason) for e in candidates], [
        rounded(e.alpha) for e in candidates
    ]


def test_in_a_cascade_the_second_judge_decides_pairs_that_it_scored():
    """First judge: σ⁺ = .9, c0 .85, c1 .7.

    Second judge: σ⁺ = .6, c0 .4, c2 .55, and c3, for which the first judge gave no verdict.
    """
    small = row([0.9], [0.85, 0.7, 0.82, None])
    items = [Item(f"c{rank}", ("s",), str(rank)) for rank in range(4)]
    again = [judged(items[rank], score, rank) for rank, score in [(0, 0.4), (2, 0.55), (3, 0.1)]]
    large = replace(small, positives=[judged(Item("p0.9", ("s",), "p"), 0.6)], candidates=again)
    told, alphas = seen(small, settings(num_negatives=9, stride=1), large=large)
    assert told == [
        ("chosen", 0.4, "score 0.400 ≤ 0.600 − 0.1, by the second judge; negative 1"),
        ("chosen", 0.7, "score 0.700 ≤ 0.900 − 0.1; negative 2"),
        ("dropped", 0.55, "score 0.550 > 0.600 − 0.1, by the second judge"),
        ("chosen", 0.1, "score 0.100 ≤ 0.600 − 0.1, by the second judge; negative 3"),
    ]
    assert alphas == [0.5, 0.8, 0.5, 0.5], (
        "c1 is held against the first judge's positive, as nobody else saw it"
    )
    lost = replace(small, positives=[Judged("p0.9", bytes(16), None, 0.5, error="bad_image: x")])
    told, _ = seen(lost, settings(num_negatives=9, stride=1), large=large)
    assert told[1] == ("kept", 0.7, "not compared: no positive has a verdict"), (
        "by the judge that saw it"
    )


def test_a_persons_override_is_explained():
    query = row([0.9], [0.85, 0.95, 0.2, None, 0.1, 0.1])
    overrides = {"c0": "match", "c1": "negative", "c3": "negative", "c4": "known", "c5": "twin"}
    told, alphas = seen(query, settings(num_negatives=1), overrides=overrides)
    known = "the corpus knows this item as an answer to the question, or as the question's image, so never a negative"
    assert told == [
        ("answer", 0.85, "marked as a match by a person, so never a negative"),
        ("chosen", 0.95, "marked as a negative by a person; negative 1"),
        ("kept", 0.2, "score 0.200 ≤ 0.900 − 0.1"),
        ("kept", None, "marked as a negative by a person"),
        ("answer", 0.1, known),
        ("answer", 0.1, "duplicate of a more similar candidate"),
    ]
    assert alphas == [None, None, 0.8, None, None, None]
    query = row([0.9], [0.85, 0.95, 0.2])
    told, alphas = seen(query, settings(num_negatives=1), overrides={None: "drop"})
    assert told[2] == ("kept", 0.2, "score 0.200 ≤ 0.900 − 0.1")
    assert alphas == [0.8, 0.8, 0.8]
    told, alphas = seen(query, settings(num_negatives=1, k=2), overrides={"p0.9": "negative"})
    without = (
        "not compared: a person marked positives as negatives, and no other positive has a verdict"
    )
    assert told == [
        ("kept", 0.85, without),
        ("kept", 0.95, without),
        ("kept", 0.2, "beyond the first k"),
    ]
    assert alphas == [None, None, None]
    choice = select_negatives(Case(query, overrides={"p0.9": "negative"}), settings())
    positives, _ = explain(choice, settings())
    assert [one.reason for one in positives] == [
        "marked as a negative by a person, so not a positive of this row"
    ]


def test_candidates_after_the_first_k_are_not_compared():
    told, _ = seen(row([0.9], [0.2, 0.3, 0.95]), settings(num_negatives=1, k=1))
    assert told == [
        ("chosen", 0.2, "score 0.200 ≤ 0.900 − 0.1; negative 1"),
        ("kept", 0.3, "beyond the first k"),
        ("kept", 0.95, "beyond the first k"),
    ]
