"""What a judge's answers make of a ranking: pure arithmetic on one query's items.

Only the first items were judged; the others keep their places after them. Gold ranks count ties against the positive.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from unijudge.formats.rankings import Ranking
from unijudge.metrics import TIE, gold_rank


def reranked(ranking: Ranking, scores: Sequence[float | None]) -> Ranking:
    """A ranking with its first items in the order of their scores, those without any behind them in their own order.

    Args:
        ranking: The embedder's, with what the judge said of its first items.
        scores: Of its first items, in its order; more is better, None where there is none.

    Returns:
        The new ranking. Without any score it is the one that was given. Its gold rank stays as it was if no positive is
        among the first items.

    Example:
        >>> reranked(Ranking("q", "s", 2, ["a", "b"], [0.9, 0.8], ["b"], 2, bytes(16)), [0.0, 3.0]).item_ids
        ['b', 'a']
    """
    scored = [place for place, score in enumerate(scores) if score is not None]
    unscored = [place for place, score in enumerate(scores) if score is None]
    if not scored:
        return ranking
    scores_N = np.array([scores[place] for place in scored], float)
    best = [scored[place] for place in np.argsort(-scores_N, kind="stable")]
    order = [*best, *unscored, *range(len(scores), len(ranking.item_ids))]
    # The best-placed positive is one with a score; the others stand behind every score, in the embedder's order.
    if gold := _right(ranking, scored):
        rank = gold_rank(scores_N, gold)
    elif gold := _right(ranking, unscored):
        rank = len(scored) + gold_rank(np.array([ranking.similarities[place] for place in unscored]), gold)
    else:
        rank = ranking.gold_rank
    return _ordered(ranking, order, rank)


def promoted(ranking: Ranking, place: int) -> Ranking:
    """A ranking with one of its items in front; the others keep their order.

    Args:
        ranking: The embedder's, with what the judge said of its first items.
        place: Of the item, from 0.

    Example:
        >>> promoted(Ranking("q", "s", 1, ["a", "b", "c"], [0.9, 0.8, 0.7], ["a"], 3, bytes(16)), 2).item_ids
        ['c', 'a', 'b']
    """
    others = [other for other in range(len(ranking.item_ids)) if other != place]
    right = ranking.positive_ids
    golden = [s for s, item_id in zip(ranking.similarities, ranking.item_ids, strict=True) if item_id in right]
    if ranking.item_ids[place] in right:
        rank = 1
    else:  # it is one more before the positive, unless it stood there already
        rank = ranking.gold_rank + bool(golden and ranking.similarities[place] < max(golden) - TIE)
    return _ordered(ranking, [place, *others], rank)


def fused(log_odds: Sequence[float | None], list_logprobs: Sequence[float]) -> list[float | None]:
    """One score for each item from both questions: the list's, and the pair's own.

        score_i = ln P(number i) + ln P(Yes_i),   P(Yes_i) = sigmoid(log_odds_i)

    A product of two probabilities: no weight, and no scale to fit. The list compares, the pair can veto: a pair surely
    wrong loses its log-odds whole, one surely right gains nothing more.

    Args:
        log_odds: Of each pair; None for one without a verdict.
        list_logprobs: Of each number.

    Returns:
        At most 0; None where there was no verdict.

    Example:
        >>> [round(score, 4) for score in fused([0.0, -2.0], [-1.0, -0.5])]
        [-1.6931, -2.6269]
    """
    return [
        None if odds is None else logprob - float(np.logaddexp(0, -odds))
        for odds, logprob in zip(log_odds, list_logprobs, strict=True)
    ]


def _right(ranking: Ranking, places: Sequence[int]) -> list[int]:
    """Which of some places of a ranking hold a positive, as numbers into `places`."""
    right = {*ranking.positive_ids}
    return [number for number, place in enumerate(places) if ranking.item_ids[place] in right]


def _ordered(ranking: Ranking, order: Sequence[int], rank: int) -> Ranking:
    """The ranking in another order, and what the judge said with it."""
    odds, listed = ranking.log_odds, ranking.list_logprobs
    return replace(
        ranking,
        gold_rank=rank,
        item_ids=[ranking.item_ids[place] for place in order],
        similarities=[ranking.similarities[place] for place in order],
        log_odds=None if odds is None else [odds[place] for place in order if place < len(odds)],
        list_logprobs=None if listed is None else [listed[place] for place in order if place < len(listed)],
    )
