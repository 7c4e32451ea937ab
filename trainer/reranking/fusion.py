"""Reorders a ranking by a judge's answers: pure arithmetic on the items of one query.

Only the first items are judged. The other items keep their order after the judged items. A gold rank counts items that
tie with the positive as better than the positive.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from unijudge.formats.rankings import Ranking
from unijudge.metrics import TIE, gold_rank

T = TypeVar("T")


def reranked(ranking: Ranking, scores: Sequence[float | None]) -> Ranking:
    """Sorts the first items of a ranking by their scores. Items without a score follow in their original order.

    Args:
        ranking: The embedder's ranking, with the judge's answers about its first items.
        scores: The scores of the first items, in the order of the ranking. Higher is better. None: no score.

    Returns:
        The new ranking. Without any score, the given ranking is returned. If no positive is among the first items, the
        gold rank is unchanged.

    Example:
        >>> reranked(Ranking("q", "s", 2, ["a", "b"], [0.9, 0.8], ["b"], 2, bytes(16)), [0.0, 3.0]).item_ids
        ['b', 'a']
    """
    scored = [index for index, score in enumerate(scores) if score is not None]
    unscored = [index for index, score in enumerate(scores) if score is None]
    if not scored:
        return ranking
    scores_N = np.array([scores[index] for index in scored], float)
    best = [scored[index] for index in np.argsort(-scores_N, kind="stable")]
    order = [*best, *unscored, *range(len(scores), len(ranking.item_ids))]
    # A positive with a score ranks before every item without a score. Items without a score keep the embedder's order.
    if gold := _right(ranking, scored):
        rank = gold_rank(scores_N, gold)
    elif gold := _right(ranking, unscored):
        rank = len(scored) + gold_rank(
            np.array([ranking.similarities[index] for index in unscored]), gold
        )
    else:
        rank = ranking.gold_rank
    return _ordered(ranking, order, rank)


def promoted(ranking: Ranking, place: int) -> Ranking:
    """Moves one item of a ranking to the front. The other items keep their order.

    Args:
        ranking: The embedder's ranking, with the judge's answers about its first items.
        place: The position of the item, from 0.

    Example:
        >>> promoted(Ranking("q", "s", 1, ["a", "b", "c"], [0.9, 0.8, 0.7], ["a"], 3, bytes(16)), 2).item_ids
        ['c', 'a', 'b']
    """
    others = [other for other in range(len(ranking.item_ids)) if other != place]
    right = ranking.positive_ids
    golden = [
        s
        for s, item_id in zip(ranking.similarities, ranking.item_ids, strict=True)
        if item_id in right
    ]
    if ranking.item_ids[place] in right:
        rank = 1
    else:  # the rank of the positive grows by 1, unless the promoted item was already before the positive
        rank = ranking.gold_rank + bool(golden and ranking.similarities[place] < max(golden) - TIE)
    return _ordered(ranking, [place, *others], rank)


def fused(log_odds: Sequence[float | None], list_logprobs: Sequence[float]) -> list[float | None]:
    """Combines the judge's answer about the list and its answers about the pairs into one score per item.

        score_i = ln P(number i) + ln P(Yes_i),   P(Yes_i) = sigmoid(log_odds_i)

    The score is the logarithm of a product of two probabilities, so no weight and no scale must be fitted. The list
    compares items, and a pair can veto an item: a pair that is surely wrong lowers the score by its full log-odds, but
    a pair that is surely right does not raise the score.

    Args:
        log_odds: The log-odds of each pair, or None for a pair without a verdict.
        list_logprobs: The log-probability of each number.

    Returns:
        The scores, each at most 0, or None for a pair without a verdict.

    Example:
        >>> [round(score, 4) for score in fused([0.0, -2.0], [-1.0, -0.5])]
        [-1.6931, -2.6269]
    """
    return [
        None if odds is None else logprob - float(np.logaddexp(0, -odds))
        for odds, logprob in zip(log_odds, list_logprobs, strict=True)
    ]


def _right(ranking: Ranking, positions: Sequence[int]) -> list[int]:
    """Returns which of some positions of a ranking hold a positive, as indices into `positions`."""
    right = {*ranking.positive_ids}
    return [
        index for index, position in enumerate(positions) if ranking.item_ids[position] in right
    ]


def _ordered(ranking: Ranking, order: Sequence[int], rank: int) -> Ranking:
    """Returns the ranking in another order, together with the judge's answers."""
    return replace(
        ranking,
        gold_rank=rank,
        item_ids=[ranking.item_ids[index] for index in order],
        similarities=[ranking.similarities[index] for index in order],
        log_odds=_in_order(ranking.log_odds, order),
        list_logprobs=_in_order(ranking.list_logprobs, order),
    )


def _in_order(answers: Sequence[T] | None, order: Sequence[int]) -> list[T] | None:
    """Returns the judge's answers about the first items of a ranking in another order."""
    if answers is None:
        return None
    return [answers[index] for index in order if index < len(answers)]
