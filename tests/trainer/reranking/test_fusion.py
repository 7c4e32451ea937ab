"""The new order of a ranking from a judge's answers, and the decision to rerank a subset. Computed by hand."""

import math

import numpy as np
import pytest

from trainer.reranking.auto import decide, is_held_out
from trainer.reranking.fusion import fused, promoted, reranked
from unijudge.formats.rankings import Ranking
from unijudge.metrics import gold_rank


def ranking(gold_rank=2, items="abcd", similarities=(0.9, 0.8, 0.7, 0.6), right="b", **judged):
    return Ranking(
        "q",
        "s",
        gold_rank,
        list(items),
        list(similarities)[: len(items)],
        [*right],
        len(items),
        bytes(16),
        **judged,
    )


def test_reranking_by_hand():
    up = reranked(ranking(log_odds=[0.0, 3.0, -1.0]), [0.0, 3.0, -1.0])
    assert (up.item_ids, up.gold_rank) == (["b", "a", "c", "d"], 1)
    assert up.log_odds == [3.0, 0.0, -1.0]
    assert up.similarities == [0.8, 0.9, 0.7, 0.6]
    assert reranked(ranking(), [1.0, 1.0]).gold_rank == 2, "a tie counts against the positive"
    failed = reranked(ranking(log_odds=[None, -5.0, None]), [None, -5.0, None])
    assert (failed.item_ids, failed.gold_rank, failed.log_odds) == (
        ["b", "a", "c", "d"],
        1,
        [-5.0, None, None],
    )
    assert reranked(ranking(), [1.0, None, 0.0]).gold_rank == 3
    assert reranked(ranking(gold_rank=7, right="z"), [1.0, 2.0]).gold_rank == 7, (
        "what was not judged stays where it was"
    )
    assert reranked(ranking(right="ab"), [0.0, 3.0]).gold_rank == 1


def test_without_a_verdict_a_ranking_is_unchanged():
    """A refused query must not count as lost: a right first item stays right."""
    right = ranking(gold_rank=1, right="a", log_odds=[None] * 3)
    assert reranked(right, [None] * 3) == right
    tied = ranking(gold_rank=2, similarities=(0.9, 0.9, 0.7, 0.6), right="a")
    assert reranked(tied, [None] * 4) == tied


def test_items_without_a_verdict_come_last_in_their_old_order():
    """A positive is among these items.

    Its rank is behind one judged item, and behind the items that the embedder placed before it or at the same place.
    """
    first = reranked(ranking(gold_rank=1, right="a"), [None, -5.0, None])
    assert (first.item_ids, first.gold_rank) == (["b", "a", "c", "d"], 2)
    last = reranked(ranking(gold_rank=3, right="c"), [None, -5.0, None])
    assert (last.item_ids, last.gold_rank) == (["b", "a", "c", "d"], 3)
    tied = reranked(
        ranking(gold_rank=3, similarities=(0.9, 0.8, 0.9, 0.6), right="a"), [None, -5.0, None]
    )
    assert tied.gold_rank == 3, "an equal similarity counts against the positive"
    judged = reranked(ranking(gold_rank=1, right="ab"), [None, -5.0, 1.0])
    assert (judged.item_ids, judged.gold_rank) == (["c", "b", "a", "d"], 2)


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_a_nan_score_has_no_rank(odd):
    """A comparison with NaN is false, so a NaN score would otherwise come first."""
    for gold in (0, 1):
        with pytest.raises(ValueError, match="no rank"):
            gold_rank(np.array([odd, 0.5, 0.4]), [gold])


def test_a_choice_goes_first_and_moves_nothing_else():
    up = promoted(ranking(list_logprobs=[-2.0, -3.0, -0.3]), 2)
    assert (up.item_ids, up.similarities) == (["c", "a", "b", "d"], [0.7, 0.9, 0.8, 0.6])
    assert up.list_logprobs == [-0.3, -2.0, -3.0]
    assert up.gold_rank == 3, "one more stands before it"
    assert promoted(ranking(), 1).gold_rank == 1
    assert promoted(ranking(), 0) == ranking(), "what was first stays so"
    assert promoted(ranking(gold_rank=9, right="z"), 2).gold_rank == 9, (
        "it was before the positive already"
    )
    for second in (0.9, 0.9 - 1e-7):
        tied = ranking(gold_rank=2, similarities=(0.9, second, 0.7, 0.6), right="a")
        assert promoted(tied, 1).gold_rank == 2, "as a tie was"


def test_the_gold_rank_of_a_choice_is_that_of_the_whole_ranking():
    """The rank is compared with a count over all items, including ties, for every item that could be chosen."""
    dice = np.random.default_rng(0)
    for _ in range(200):
        scores_N = np.sort(dice.integers(0, 5, size=7))[::-1] / 4
        gold = int(dice.integers(7))
        for place in range(5):
            chosen_N = scores_N.copy()
            chosen_N[place] = 2
            old = ranking(
                gold_rank(scores_N, [gold]), "abcdefg", scores_N.tolist(), "abcdefg"[gold]
            )
            assert promoted(old, place).gold_rank == gold_rank(chosen_N, [gold])


def test_fusing_by_hand():
    """P(number) = ½, ¼, ¼ and P(Yes) = ¼, ¾, ½: products 2/16, 3/16, 2/16."""
    odds = [math.log(1 / 3), math.log(3), 0.0]
    scores = fused(odds, [math.log(0.5), math.log(0.25), math.log(0.25)])
    assert scores == pytest.approx([math.log(2 / 16), math.log(3 / 16), math.log(2 / 16)])
    assert fused([None, -1000.0], [-1.0, -1.0]) == [None, pytest.approx(-1001.0)]
    assert fused([1000.0, 2000.0], [-1.0, -2.0]) == pytest.approx([-1.0, -2.0]), (
        "two sure pairs: the list decides"
    )


@pytest.mark.parametrize(
    ("queries", "gained", "lost", "reranked"),
    [
        (100, 6, 5, True),  # enough queries, so any gain counts
        (100, 5, 5, False),
        (100, 5, 6, False),
        (49, 6, 5, False),  # few queries, and 1 < √11
        (49, 9, 3, True),  # 6 > √12
        (49, 7, 3, True),  # 4 > √10
        (49, 6, 3, False),  # 3 = √9
        (1, 1, 0, False),  # 1 = √1: one lucky query
        (2, 2, 0, True),
        (0, 0, 0, False),
    ],
)
def test_a_subset_is_reranked_where_held_out_queries_gain(queries, gained, lost, reranked):
    decision = decide(queries, gained, lost, min_queries=50)
    assert decision.reranked is reranked
    assert decision.difference == pytest.approx((gained - lost) / max(1, queries))
    assert decision.standard_error == pytest.approx(math.sqrt(gained + lost) / max(1, queries))


def test_the_held_out_half_is_a_half_and_always_the_same():
    ids = [f"Scenes_i2t:{number:06d}" for number in range(4000)]
    held_out = [query_id for query_id in ids if is_held_out(query_id)]
    assert abs(len(held_out) - 2000) < 3 * math.sqrt(1000)
    assert held_out == [query_id for query_id in reversed(ids) if is_held_out(query_id)][::-1]


def test_a_positive_that_was_not_judged_keeps_its_rank_and_equal_scores_their_order():
    ranking = Ranking("q", "s", 3, ["a", "b", "c"], [0.9, 0.8, 0.7], ["c"], 3, b"k")
    assert (reranked(ranking, [0.0, 1.0]).gold_rank, reranked(ranking, [0.0, 1.0]).item_ids) == (
        3,
        ["b", "a", "c"],
    )
    names = [f"i{place}" for place in range(60)]
    many = Ranking("q", "s", 1, names, [1 - place / 100 for place in range(60)], ["i0"], 60, b"k")
    scores = [float(place % 2) for place in range(60)]
    assert reranked(many, scores).item_ids == names[1::2] + names[::2]


def test_a_choice_is_compared_with_the_best_positive():
    """c was behind the better positive b, and moves before it."""
    ranking = Ranking("q", "s", 2, ["a", "b", "c", "d"], [0.9, 0.8, 0.7, 0.5], ["b", "d"], 4, b"k")
    assert promoted(ranking, 2).gold_rank == 3
    assert promoted(ranking, 0).gold_rank == 2
