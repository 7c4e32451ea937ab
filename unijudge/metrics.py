"""Measures of rankings and scores, as plain arithmetic on numpy arrays.

Letters: Q queries · N items. A gold rank is 1 + the number of items with a higher score + the number of items with an
equal score, so ties never improve a result. Scores within `TIE` are equal, because a matrix product gives equal rows
different last bits.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Places = Sequence[int] | npt.NDArray[np.int64]
TIE = 1e-6
"""The tolerance for equal scores: below the difference of two contents in float16, above float32's rounding errors."""


def gold_rank(scores_N: Floats, gold: Places) -> int:
    """Returns the rank, from 1, of the best gold item. Non-gold items with an equal score rank before it.

    Example:
        >>> gold_rank(np.array([0.9, 0.5, 0.5]), [1])
        3
    """
    return int(gold_ranks(scores_N, gold)[0])


def gold_ranks(scores_N: Floats, gold: Places) -> npt.NDArray[np.int64]:
    """Returns the ascending ranks, from 1, of all gold items. Non-gold items with an equal score rank before them.

    Raises:
        ValueError: A score is not a finite number, so it has no rank.

    Example:
        >>> gold_ranks(np.array([0.9, 0.5, 0.5, 0.1]), [3, 0]).tolist()
        [1, 4]
    """
    if not np.isfinite(scores_N).all():
        raise ValueError(
            "a score is not a finite number, so it has no rank. Check the model that computed it"
        )
    golden = np.zeros(len(scores_N), bool)
    golden[np.asarray(gold, np.int64)] = True
    others = np.sort(scores_N[~golden])
    ours = -np.sort(-scores_N[golden])
    before = len(others) - np.searchsorted(others, ours - TIE)
    return 1 + np.arange(len(ours)) + before


def precision_at_1(ranks_Q: npt.NDArray[np.integer]) -> float:
    """Returns the share of queries whose first item is gold, in [0, 1]."""
    return float((ranks_Q == 1).mean())


def recall_at(ranks_Q: npt.NDArray[np.integer], k: int) -> float:
    """Returns the share of queries with a gold item among the first k, in [0, 1]: recall@k of retrieval papers."""
    return float((ranks_Q <= k).mean())


def mean_reciprocal_rank(ranks_Q: npt.NDArray[np.integer]) -> float:
    """Returns the mean of 1 / gold rank, in (0, 1].

    Example:
        >>> mean_reciprocal_rank(np.array([1, 2]))
        0.75
    """
    return float((1 / ranks_Q).mean())


def bootstrap_shares(share: float, queries: int, name: str, rounds: int = 10_000) -> Floats:
    """Returns bootstrapped shares of right answers, by resampling the queries with replacement.

    Q draws with replacement from Q zeros and ones contain Binomial(Q, share) ones, so the bootstrap of a share needs
    only the number of queries. It assumes independent queries, which is not exact for five captions of an image. With
    no or only right answers, the share does not vary.

    Args:
        share: The share of queries with a right answer, in [0, 1].
        queries: The number of queries.
        name: The name of the measured set. It is the seed, so that a set's draws do not depend on other sets.
        rounds: The number of resamplings.

    Returns:
        (rounds,), each in [0, 1].

    Source:
        Efron, "Bootstrap methods: another look at the jackknife", Annals of Statistics 7(1), 1979.

    Example:
        >>> bootstrap_shares(1.0, 50, "VOC2007", rounds=3).tolist()
        [1.0, 1.0, 1.0]
    """
    return np.random.default_rng([*name.encode()]).binomial(queries, share, rounds) / queries


def interval(values: Floats, level: float = 0.95) -> tuple[float, float]:
    """Returns the percentile interval of bootstrapped values, which contains the share `level` of the values.

    Example:
        >>> [round(end, 3) for end in interval(np.linspace(0, 1, 1001))]
        [0.025, 0.975]
    """
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def modality_gap(images_ND: Floats, texts_MD: Floats) -> float:
    """Returns the distance between image and text embeddings, ‖mean image − mean text‖₂; in [0, 2] for unit vectors.

    Returns:
        The distance, or NaN without images or without texts, for which the gap is not defined.

    Source:
        Liang et al., "Mind the Gap: Understanding the Modality Gap in Multi-modal Contrastive Representation Learning",
        NeurIPS 2022, arXiv 2203.02053, section 4.2.

    Example:
        >>> modality_gap(np.array([[1.0, 0.0]]), np.array([[0.6, 0.8], [0.6, -0.8]]))
        0.4
    """
    if not len(images_ND) or not len(texts_MD):
        return float("nan")
    return float(np.linalg.norm(images_ND.mean(0) - texts_MD.mean(0)))


def ndcg(scores_N: Floats, gold: Places, k: int) -> float:
    """Returns normalised discounted cumulative gain at k, with binary relevance, in [0, 1].

    In a tie, non-gold items rank first.

    Source:
        Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", ACM TOIS 20(4), 2002.

    Example:
        >>> round(ndcg(np.array([0.9, 0.8, 0.1]), [1], k=10), 4)
        0.6309
    """
    discounts = 1 / np.log2(np.arange(2, k + 2))
    ranks = gold_ranks(scores_N, gold)
    found = ranks[ranks <= k]
    gain = discounts[found - 1].sum()

    # The ideal order has all gold items first.
    ideal = discounts[: min(k, len(ranks))].sum()
    return float(gain / ideal)


def roc_auc(scores_N: Floats, labels_N: npt.NDArray[np.bool_]) -> float:
    """Returns the probability that a random positive scores above a random negative, in [0, 1]. Ties count half.

    Raises:
        ValueError: Without a positive or without a negative, the area is not defined.

    Example:
        >>> roc_auc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True]))
        0.75
    """
    positives = int(labels_N.sum())
    negatives = len(labels_N) - positives
    if not positives or not negatives:
        raise ValueError("roc_auc needs at least one positive and one negative")
    _, place, counts = np.unique(scores_N, return_inverse=True, return_counts=True)

    # Equal scores share the mean of their ranks. The lowest possible sum of the positives' ranks is subtracted.
    midranks_U = np.cumsum(counts) - (counts - 1) / 2
    rank_sum = midranks_U[place][labels_N].sum()
    lowest_sum = positives * (positives + 1) / 2
    return float((rank_sum - lowest_sum) / (positives * negatives))


def tied_share(scores_N: Floats, labels_N: npt.NDArray[np.bool_]) -> float:
    """Returns the share of (positive, negative) pairs with equal scores, which `roc_auc` counts half; in [0, 1].

    Example:
        >>> tied_share(np.array([0.5, 0.5, 0.9]), np.array([True, False, True]))
        0.5
    """
    # U: the distinct scores. Each has a number of positives and a number of negatives.
    values, place = np.unique(scores_N, return_inverse=True)
    positives_U = np.bincount(place[labels_N], minlength=len(values))
    negatives_U = np.bincount(place[~labels_N], minlength=len(values))
    equal = int(positives_U @ negatives_U)
    pairs = int(positives_U.sum()) * int(negatives_U.sum())
    return equal / pairs


def bootstrap_roc_auc(
    scores_N: Floats,
    labels_N: npt.NDArray[np.bool_],
    queries_N: Places,
    *,
    seed: int,
    rounds: int = 1000,
) -> Floats:
    """Returns bootstrapped ROC-AUCs, by resampling the queries with replacement, each with all of its pairs.

    The pairs of a query are correlated, so an interval that treats the pairs as independent would be too narrow.

    Args:
        scores_N: The scores of the pairs.
        labels_N: Whether each pair matches.
        queries_N: The number of each pair's query, from 0.
        seed: The seed of the draws.
        rounds: The number of resamplings.

    Returns:
        At most (rounds,), each in [0, 1]. A draw without a positive or without a negative is left out.

    Source:
        Field and Welsh, "Bootstrapping clustered data", Journal of the Royal Statistical Society B 69(3), 2007.

    Example:
        >>> bootstrap_roc_auc(np.array([0.9, 0.1]), np.array([True, False]), [0, 0], seed=0, rounds=2).tolist()
        [1.0, 1.0]
    """
    values, place = np.unique(scores_N, return_inverse=True)
    queries = np.asarray(queries_N, np.int64)
    rng = np.random.default_rng(seed)
    num_queries = int(queries.max()) + 1
    areas = []
    for _ in range(rounds):
        # The weight of a pair is the number of times that its query was drawn.
        weights_N = np.bincount(rng.integers(num_queries, size=num_queries), minlength=num_queries)[
            queries
        ]
        positives_U = np.bincount(place, weights_N * labels_N, len(values))
        negatives_U = np.bincount(place, weights_N * ~labels_N, len(values))
        below_U = np.cumsum(negatives_U) - negatives_U / 2
        if pairs := positives_U.sum() * negatives_U.sum():
            areas.append(float(positives_U @ below_U / pairs))
    return np.array(areas)


def share_interval(hits: int, total: int, z: float = 1.959964) -> tuple[float, float]:
    """Returns Wilson's interval of a share, 95 % by default, which is also valid if no or all trials are hits.

    Source:
        Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22(158), 1927.

    Example:
        >>> [round(end, 4) for end in share_interval(0, 10)]
        [0.0, 0.2775]
    """
    share = hits / total
    spread = z * z / total
    middle = share + spread / 2
    half = math.sqrt(spread * (share * (1 - share) + spread / 4))
    low = (middle - half) / (1 + spread)
    high = (middle + half) / (1 + spread)
    return max(0.0, low), min(1.0, high)


def calibration_bins(
    probabilities_N: Floats, labels_N: npt.NDArray[np.bool_], bins: int = 10
) -> list[tuple[int, float, float]]:
    """Returns size, mean probability and share of positives for each equal-width bin that is not empty, in order.

    Example:
        >>> calibration_bins(np.array([0.25, 0.25, 1.0]), np.array([True, False, True]))
        [(2, 0.25, 0.5), (1, 1.0, 1.0)]
    """
    place = np.minimum((probabilities_N * bins).astype(int), bins - 1)
    found = []
    for index in np.unique(place):
        inside = place == index
        confidence = float(probabilities_N[inside].mean())
        positives = float(labels_N[inside].mean())
        found.append((int(inside.sum()), confidence, positives))
    return found


def calibration_error(
    probabilities_N: Floats, labels_N: npt.NDArray[np.bool_], bins: int = 10
) -> float:
    """Returns the expected calibration error: mean |confidence − accuracy| over equal-width bins, weighted by size.

    The result is in [0, 1].

    Source:
        Naeini, Cooper and Hauskrecht, "Obtaining well calibrated probabilities using Bayesian binning", AAAI 2015.

    Example:
        >>> calibration_error(np.array([0.75, 0.75, 0.75, 0.75]), np.array([True, True, True, False]))
        0.0
    """
    found = calibration_bins(probabilities_N, labels_N, bins)
    total = sum(size * abs(confidence - accuracy) for size, confidence, accuracy in found)
    return total / len(labels_N)


def kendall_tau(left_N: Floats, right_N: Floats) -> float:
    """Returns Kendall's τ-b, the agreement of two orders of the same items with a correction for ties; in [−1, 1].

    Source:
        Kendall, "The treatment of ties in ranking problems", Biometrika 33(3), 1945.

    Returns:
        The agreement, or NaN if all values of a side are equal.

    Example:
        >>> round(kendall_tau(np.array([1.0, 2.0, 3.0]), np.array([1.0, 3.0, 2.0])), 4)
        0.3333
    """
    # The order of each pair of items: −1, 0 or 1.
    left_NN = np.sign(left_N[:, None] - left_N[None, :])
    right_NN = np.sign(right_N[:, None] - right_N[None, :])
    untied_left = (left_NN**2).sum()
    untied_right = (right_NN**2).sum()
    norm = np.sqrt(untied_left * untied_right)
    if not norm:
        return float("nan")
    agreement = (left_NN * right_NN).sum()
    return float(agreement / norm)
