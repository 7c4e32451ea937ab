"""Measures of rankings and of scores, as plain arithmetic on numpy arrays.

Letters: Q queries · N items. A gold rank is 1 + the items that score better + the items that score equal, so ties
never flatter.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]


def gold_rank(scores_N: Floats, gold: Sequence[int]) -> int:
    """The rank, from 1, of the best-placed gold item; every non-gold item of equal score stands before it.

    Example:
        >>> gold_rank(np.array([0.9, 0.5, 0.5]), [1])
        3
    """
    golden = np.zeros(len(scores_N), bool)
    golden[list(gold)] = True
    return 1 + int((scores_N[~golden] >= scores_N[golden].max()).sum())


def precision_at_1(ranks_Q: npt.NDArray[np.integer]) -> float:
    """The share of queries whose first item is gold, in [0, 1]."""
    return float((ranks_Q == 1).mean())


def recall_at(ranks_Q: npt.NDArray[np.integer], k: int) -> float:
    """The share of queries with a gold item among the first k, in [0, 1]: recall@k as retrieval papers count it."""
    return float((ranks_Q <= k).mean())


def mean_reciprocal_rank(ranks_Q: npt.NDArray[np.integer]) -> float:
    """Mean of 1 / gold rank, in (0, 1].

    Example:
        >>> mean_reciprocal_rank(np.array([1, 2]))
        0.75
    """
    return float((1 / ranks_Q).mean())


def ndcg(scores_N: Floats, gold: Sequence[int], k: int) -> float:
    """Normalised discounted cumulative gain at k with binary relevance, in [0, 1]; ties rank non-gold items first.

    Source:
        Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", ACM TOIS 20(4), 2002.

    Example:
        >>> round(ndcg(np.array([0.9, 0.8, 0.1]), [1], k=10), 4)
        0.6309
    """
    golden = np.zeros(len(scores_N), bool)
    golden[list(gold)] = True
    order = np.lexsort((golden, -scores_N))[:k]
    discounts = 1 / np.log2(np.arange(2, k + 2))
    gain = (golden[order] * discounts[: len(order)]).sum()
    return float(gain / discounts[: min(k, len(set(gold)))].sum())


def roc_auc(scores_N: Floats, labels_N: npt.NDArray[np.bool_]) -> float:
    """The chance that a random positive scores above a random negative, ties counting half; in [0, 1].

    Raises:
        ValueError: There is no positive, or no negative: the area is not defined.

    Example:
        >>> roc_auc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True]))
        0.75
    """
    positives, negatives = int(labels_N.sum()), int((~labels_N).sum())
    if not positives or not negatives:
        raise ValueError("roc_auc needs at least one positive and one negative")
    _, place, counts = np.unique(scores_N, return_inverse=True, return_counts=True)
    midranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return float((midranks[labels_N].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def calibration_error(probabilities_N: Floats, labels_N: npt.NDArray[np.bool_], bins: int = 10) -> float:
    """Expected calibration error: mean |confidence − accuracy| over equal-width bins, weighted by size; in [0, 1].

    Source:
        Naeini, Cooper and Hauskrecht, "Obtaining well calibrated probabilities using Bayesian binning", AAAI 2015.

    Example:
        >>> calibration_error(np.array([0.75, 0.75, 0.75, 0.75]), np.array([True, True, True, False]))
        0.0
    """
    place = np.minimum((probabilities_N * bins).astype(int), bins - 1)
    error = 0.0
    for index in np.unique(place):
        inside = place == index
        error += inside.mean() * abs(probabilities_N[inside].mean() - labels_N[inside].mean())
    return float(error)


def kendall_tau(left_N: Floats, right_N: Floats) -> float:
    """Kendall's τ-b: agreement of two orders of the same items, ties counted out; in [−1, 1].

    Source:
        Kendall, "The treatment of ties in ranking problems", Biometrika 33(3), 1945.

    Returns:
        NaN where one side has no order at all.

    Example:
        >>> round(kendall_tau(np.array([1.0, 2.0, 3.0]), np.array([1.0, 3.0, 2.0])), 4)
        0.3333
    """
    left, right = (np.sign(side[:, None] - side[None, :]) for side in (left_N, right_N))
    norm = np.sqrt((left**2).sum() * (right**2).sum())
    return float((left * right).sum() / norm) if norm else float("nan")
