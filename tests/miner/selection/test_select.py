"""The filter, the strides and the presets: values that were computed by hand, and properties that hold for any
scores.
"""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from miner.scoring.job import score
from miner.selection.negatives import score_of, select_negatives, strided, survivors
from miner.selection.resolve import TOLERANCE, Case, ScoredCandidate, at_most
from miner.selection.select import select
from miner.selection.settings import SelectSettings
from miner.settings import ScoreSettings
from tests.miner.rows import judged, names, query
from unijudge.errors import DataError, NothingSelected
from unijudge.formats.inventory import check
from unijudge.formats.scores import Judged
from unijudge.formats.triples import Scale, read_triples

ANYWHERE = Path("unused")


def settings(preset, **changes):
    return SelectSettings(scores=ANYWHERE, corpus=ANYWHERE, out=ANYWHERE, preset=preset, **changes)


def test_the_filter_drops_candidates_nearly_as_good_as_the_positive():
    choice = select_negatives(
        Case(query(0.9, [0.95, 0.85, 0.79, 0.1])), settings("unime-v2", num_negatives=2)
    )
    assert names(choice) == ["c2", "c3"]
    assert choice.dropped == 2
    assert {negative.beta for negative in choice.triple.negatives} == {0.1}


def test_the_ladder_relaxes_only_when_nothing_survives():
    ladder = (0.1, 0.01, 0.001)

    def scored(*scores):
        return [ScoredCandidate(judged("a", p), p, 0.5) for p in scores]

    assert survivors(scored(0.45), ladder)[0] == 0.01
    assert survivors(scored(0.495, 0.498), ladder)[0] == 0.001
    assert survivors(scored(0.5), ladder) == (0.001, [])
    choice = select_negatives(Case(query(0.5, [0.6, 0.7])), settings("unime-v2"))
    assert choice.triple is None
    assert choice.reason == "no survivor"


def test_the_second_walk_starts_one_candidate_later():
    choice = select_negatives(Case(query(0.9, [0.1] * 12)), settings("unime-v2"))
    assert names(choice) == ["c0", "c5", "c10", "c1", "c6", "c11", "c2", "c7", "c3", "c8"]
    assert not any(negative.duplicate for negative in choice.triple.negatives)
    assert choice.tie


def test_too_few_are_repeated_and_marked():
    choice = select_negatives(Case(query(0.9, [0.1, 0.2])), settings("unime-v2", num_negatives=5))
    assert names(choice) == ["c0", "c1", "c0", "c1", "c0"]
    assert [negative.duplicate for negative in choice.triple.negatives] == [
        False,
        False,
        True,
        True,
        True,
    ]
    assert not choice.tie


def test_the_paper_draws_at_random_when_nothing_survives():
    row = query(0.3, [0.6] * 30)
    choice = select_negatives(Case(row), settings("paper"))
    assert len(set(names(choice))) == 10
    assert all(negative.fallback for negative in choice.triple.negatives)
    assert names(choice) == names(select_negatives(Case(row), settings("paper")))
    assert names(choice) != names(select_negatives(Case(row), settings("paper", seed=1)))
    assert choice.suspect


def test_controls_need_no_judge():
    row = query(0.5, [0.9, 0.1, 0.8, 0.2, 0.7, 0.3, 0.6])
    assert names(select_negatives(Case(row), settings("topk", num_negatives=3))) == [
        "c0",
        "c1",
        "c2",
    ]
    assert names(select_negatives(Case(row), settings("cyclic", num_negatives=3))) == [
        "c0",
        "c5",
        "c1",
    ]
    drawn = [Judged("x", bytes(16), None, None), Judged("y", bytes(16), None, None)]
    choice = select_negatives(Case(row), settings("random", num_negatives=2), drawn=drawn)
    assert names(choice) == ["x", "y"]
    assert choice.dropped == 0
    assert choice.triple.negatives[0].beta is None


def test_pairs_without_a_verdict_are_never_chosen():
    row = query(0.9, [0.1, 0.2])
    row.candidates.append(Judged("bad", bytes(16), 2, 0.5, error="bad_image: x"))
    assert "bad" not in names(select_negatives(Case(row), settings("unime-v2")))
    row.positives[:] = [Judged("p", bytes(16), None, 0.5, error="bad_image: x")]
    assert select_negatives(Case(row), settings("unime-v2")).reason == "unjudged"


@given(st.integers(-100, 100))
def test_a_divisor_puts_bfloat16_scores_on_the_released_grid(eighths):
    """bfloat16 has steps of 1/8 for logits from 16 to 32.

    The released scores' logits, times 1.05, are multiples of 1/8.
    """
    log_odds = eighths / 8
    yes = -math.log1p(math.exp(-log_odds))
    released = Scale(slope=1 / 1.05).score(Judged("a", bytes(16), 0, 0.5, yes, yes - log_odds))
    steps = math.log(released / (1 - released)) * 1.05 * 8
    assert steps == pytest.approx(eighths, abs=1e-6)


def test_a_scale_moves_the_threshold():
    """.80 and .65 differ by .15. With half the log-odds they are .67 and .58, which differ by less than .1."""
    row = query(0.8, [0.65])
    assert select_negatives(Case(row), settings("unime-v2")).triple.negatives[0].beta == 0.1
    halved = Case(row, scales=(Scale(slope=1 / 2),))
    assert select_negatives(halved, settings("unime-v2")).triple.negatives[0].beta == 0.01


def test_only_the_first_k_candidates_count():
    row = query(0.9, [0.95, 0.2, 0.1, 0.3])
    choice = select_negatives(Case(row), settings("unime-v2", k=2, num_negatives=2))
    assert names(choice) == ["c1", "c1"]
    assert (choice.candidates, choice.dropped, choice.survivors) == (2, 1, 1)
    row.candidates[:] = [replace(one, rank=None) for one in row.candidates]
    assert names(select_negatives(Case(row), settings("unime-v2", k=2, num_negatives=1))) == [
        "c1"
    ], "without ranks, as they stand"
    row.candidates[:] = [judged("far", 0.1, 40), judged("farther", 0.1, 50)]
    assert names(select_negatives(Case(row), settings("topk", k=41, num_negatives=1))) == ["far"]
    assert select_negatives(Case(row), settings("topk", k=40)).reason == "no candidate"


def test_suspect_positives_are_flagged_and_may_weigh_less_or_be_left_out():
    row = query(0.3, [0.1])
    flagged = select_negatives(Case(row), settings("unime-v2")).triple
    assert (flagged.suspect, flagged.weight) == (True, 1.0)
    lighter = select_negatives(
        Case(row), settings("unime-v2", suspect_action="down_weight", suspect_below=0.6)
    ).triple
    assert (lighter.suspect, lighter.weight) == (True, pytest.approx(0.3 / 0.6))
    left = select_negatives(Case(row), settings("unime-v2", suspect_action="leave_out"))
    assert (left.triple, left.reason, left.suspect) == (None, "suspect", True)
    good = select_negatives(
        Case(query(0.7, [0.1])), settings("unime-v2", suspect_action="down_weight")
    ).triple
    assert (good.suspect, good.weight) == (False, 1.0)


def test_candidates_as_good_as_the_positive_are_offered_on_request():
    row = query(0.6, [0.9, 0.1, 0.6, 0.59])
    offered = select_negatives(Case(row), settings("unime-v2", extra_positives=True)).triple
    assert [one.item_id for one in offered.extra_positives] == ["c0", "c2"]
    assert select_negatives(Case(row), settings("unime-v2")).triple.extra_positives == []
    control = select_negatives(
        Case(row), settings("topk", num_negatives=1, extra_positives=True)
    ).triple
    assert [one.item_id for one in control.extra_positives] == ["c2"], (
        "what was taken as a negative is none"
    )


def test_the_best_of_several_positives_counts():
    row = query(0.4, [0.5])
    row.positives.append(judged("p2", 0.8))
    choice = select_negatives(Case(row), settings("unime-v2"))
    assert choice.triple.positive.item_id == "p2"
    assert names(choice)[0] == "c0"


@given(st.lists(st.integers()), st.integers(1, 9))
def test_a_walk_visits_everything_once(ranked, stride):
    assert sorted(strided(ranked, stride)) == sorted(ranked)


@given(
    st.floats(0.01, 0.99),
    st.lists(st.floats(0.01, 0.99), min_size=1, max_size=50),
    st.sampled_from(["unime-v2", "paper"]),
)
def test_no_chosen_negative_beats_the_margin(positive, scores, preset):
    choice = select_negatives(Case(query(positive, scores)), settings(preset))
    if choice.triple:
        assert len(choice.triple.negatives) == 10
        for negative in choice.triple.negatives:
            cut = score_of(choice.triple.positive) - (negative.beta or 0)
            assert negative.fallback or score_of(negative) <= cut + TOLERANCE


def test_the_tolerance_is_a_millionth():
    assert at_most(0.5 + 0.5e-6, 0.5)
    assert not at_most(0.5 + 1.5e-6, 0.5)


def test_a_row_without_positives_is_unjudged_and_not_selected():
    row = query(0.9, [0.1])
    row.positives.clear()
    assert select_negatives(Case(row), settings("unime-v2")).reason == "unjudged"


def in_float32(row):
    """The scores as a score folder returns them."""

    def narrowed(one):
        return replace(
            one,
            yes_logprob=float(np.float32(one.yes_logprob)),
            no_logprob=float(np.float32(one.no_logprob)),
        )

    return replace(
        row, positives=[*map(narrowed, row.positives)], candidates=[*map(narrowed, row.candidates)]
    )


@pytest.mark.parametrize("beta", [0.01, 0.05, 0.1, 0.2, 0.3])
def test_scores_of_two_decimals_exactly_at_the_cut_survive(beta):
    """The published score is 0.80, the positive has 0.90, and β = 0.1.

    The rule is score ≤ σ⁺ − β, independent of the rounding of float32 and of 0.9 − 0.1.
    """
    made = settings("unime-v2", betas=(beta,), num_negatives=1, suspect_below=0.3)
    for hundredths in range(round(beta * 100) + 1, 100):
        positive, cut = hundredths / 100, hundredths / 100 - beta
        row = in_float32(query(positive, [cut, min(0.999, cut + 0.001)]))
        choice = select_negatives(Case(row), made)
        assert (names(choice), choice.dropped) == (["c0"], 1), positive
        assert choice.suspect == (hundredths < 30)


@pytest.fixture
def scored(tmp_path, corpus, service):
    job = ScoreSettings(
        corpus=corpus.folder,
        vectors=tmp_path / "vectors",
        out=tmp_path / "scores",
        service=service,
        k=20,
    )
    score(job, lambda progress: None)
    return job


@pytest.mark.parametrize("preset", ["unime-v2", "paper", "topk", "random", "cyclic"])
def test_a_whole_selection(tmp_path, corpus, scored, preset):
    made = SelectSettings(
        scores=scored.out,
        corpus=corpus.folder,
        vectors=scored.vectors,
        out=tmp_path / "triples",
        preset=preset,
    )
    table = select(made)
    rows = list(read_triples(made.out, corpus.fingerprint))
    assert table["rows kept"] == len(rows) > 30
    assert table["queries"] == 61
    assert "whole" in check(made.out)
    positives = {}
    for asked in corpus.queries:
        positives.setdefault(asked.key, set()).update(asked.positive_ids)
    keys = {asked.query_id: asked.key for asked in corpus.queries}
    for row in rows:
        assert not positives[keys[row.query_id]] & {negative.item_id for negative in row.negatives}
    with pytest.raises(DataError, match="exists already"):
        select(made)


def test_a_partial_folder_is_refused_unless_it_is_allowed(tmp_path, corpus, scored):
    (scored.out / "part-00000.parquet").unlink()
    made = SelectSettings(
        scores=scored.out, corpus=corpus.folder, vectors=scored.vectors, out=tmp_path / "triples"
    )
    with pytest.raises(DataError, match="1 of 1 shards are missing"):
        select(made)
    assert not made.out.exists()
    with pytest.raises(
        DataError,
        match=r"triples: no row is kept of 0 queries \(no query was scored\), so nothing was",
    ):
        select(made.model_copy(update={"partial": True}))
    assert not made.out.exists()


def test_a_selection_that_keeps_no_row_is_refused_with_its_counts(tmp_path, corpus, scored):
    """An older selection is kept, also with --overwrite."""
    made = SelectSettings(scores=scored.out, corpus=corpus.folder, out=tmp_path / "triples")
    select(made)
    before = (made.out / "triples.json").read_bytes()
    strict = made.model_copy(update={"suspect_below": 1.0, "suspect_action": "leave_out"})
    with pytest.raises(
        NothingSelected, match=r"no row is kept of 61 queries \(left out, suspect positive: 61\)"
    ) as no:
        select(strict, overwrite=True)
    assert no.value.statistics["left out, suspect positive"] == 61
    wanted = made.model_copy(update={"min_rows": 62})
    with pytest.raises(NothingSelected, match=r"only \d+ rows are kept, fewer than min_rows = 62,"):
        select(wanted, overwrite=True)
    assert (made.out / "triples.json").read_bytes() == before
