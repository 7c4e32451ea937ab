"""Measures of rankings and of scores: values computed by hand, with ties."""

import math

import numpy as np
import pytest

from unijudge.metrics import (
    bootstrap_roc_auc,
    calibration_bins,
    calibration_error,
    gold_ranks,
    kendall_tau,
    ndcg,
    precision_at_1,
    recall_at,
    roc_auc,
    share_interval,
    tied_share,
)


def test_equal_scores_count_half_in_the_area():
    """Of 2 × 3 pairs, two are equal. The other positive is below all negatives: (½ + ½) / 6."""
    scores = np.array([0.5, 0.5, 0.5, 0.2, 0.9])
    labels = np.array([True, False, False, True, False])
    assert roc_auc(scores, labels) == pytest.approx(1 / 6)
    assert roc_auc(-scores, labels) == pytest.approx(5 / 6)
    assert roc_auc(np.zeros(5), labels) == 0.5


@pytest.mark.parametrize("label", [True, False])
def test_an_area_needs_both_kinds(label):
    with pytest.raises(ValueError, match="at least one positive and one negative"):
        roc_auc(np.array([0.1, 0.2]), np.array([label, label]))


def test_a_bin_holds_its_lower_end_and_the_last_one_also_1():
    """0.95 and 1 are in one bin with a mean of .975, of which half match.

    0.25 occurs twice in another bin, of which half match.
    """
    probabilities, labels = np.array([0.95, 1.0, 0.25, 0.25]), np.array([True, False, False, True])
    assert calibration_error(probabilities, labels) == pytest.approx(0.475 / 2 + 0.25 / 2)
    assert calibration_error(np.array([0.11, 0.19]), np.array([False, True])) == pytest.approx(
        0.35
    ), "ten bins"
    assert calibration_error(
        np.array([0.11, 0.19]), np.array([False, True]), bins=100
    ) == pytest.approx(0.46)


def test_kendalls_tau_with_ties():
    """Of six pairs, three agree and one disagrees. Each side orders five pairs: (3 − 1) / √(5 · 5)."""
    left, right = np.array([1.0, 2.0, 2.0, 3.0]), np.array([1.0, 3.0, 2.0, 2.0])
    assert kendall_tau(left, right) == pytest.approx(0.4)
    assert kendall_tau(left, -right) == pytest.approx(-0.4)
    assert math.isnan(kendall_tau(left, np.zeros(4)))
    assert math.isnan(kendall_tau(np.zeros(4), right))


def test_gain_counts_the_first_k_and_the_best_that_k_can_hold():
    """Ranks 2 and 4 with k = 3 give (1 / log₂ 3) / (1 + 1 / log₂ 3). Three right items fill k = 2."""
    scores = np.array([0.9, 0.8, 0.7, 0.6])
    assert ndcg(scores, [3, 1], 3) == pytest.approx((1 / math.log2(3)) / (1 + 1 / math.log2(3)))
    assert ndcg(scores, [0, 1, 2], 2) == 1
    assert ndcg(scores, [3], 3) == 0


def test_a_tie_is_as_wide_as_the_tolerance_and_no_wider():
    assert gold_ranks(np.array([0.5, 0.5 - 0.5e-6, 0.4]), [0]).tolist() == [2]
    assert gold_ranks(np.array([0.5, 0.5 - 1.5e-6, 0.4]), [0]).tolist() == [1]


def test_shares_of_first_and_of_early_ranks():
    ranks = np.array([1, 5, 6, 1])
    assert precision_at_1(ranks) == 0.5
    assert recall_at(ranks, 5) == 0.75


def drawn_scores(seed, size=400):
    """Scores on a coarse grid, so that many are equal, and labels that correlate with the scores."""
    rng = np.random.default_rng(seed)
    labels = rng.random(size) < 0.3
    return np.round(np.clip(rng.normal(0.4 + 0.2 * labels, 0.2), 0, 1), 2), labels


@pytest.mark.parametrize("seed", range(5))
def test_areas_and_curves_are_those_of_scikit_learn(seed):
    from sklearn.calibration import calibration_curve
    from sklearn.metrics import roc_auc_score

    scores, labels = drawn_scores(seed)
    assert roc_auc(scores, labels) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    # On the edge of two bins, both implementations differ.
    inside = scores + 0.005 * (scores < 0.5) - 0.005 * (scores >= 0.5)
    accuracies, confidences = calibration_curve(labels, inside, n_bins=10)
    found = calibration_bins(inside, labels)
    assert [share for _, _, share in found] == pytest.approx(accuracies.tolist())
    assert [score for _, score, _ in found] == pytest.approx(confidences.tolist())
    assert sum(size for size, _, _ in found) == len(scores)


def test_a_draw_weighs_a_query_by_how_often_it_was_drawn():
    """The area equals scikit-learn's area with the same weights. The pairs of a query are drawn together."""
    from sklearn.metrics import roc_auc_score

    scores, labels = drawn_scores(7)
    queries = np.arange(len(scores)) // 8
    rng, count = np.random.default_rng(3), queries.max() + 1
    weights = [
        np.bincount(rng.integers(count, size=count), minlength=count)[queries] for _ in range(20)
    ]
    expected = [roc_auc_score(labels, scores, sample_weight=one) for one in weights]
    assert bootstrap_roc_auc(scores, labels, queries, seed=3, rounds=20).tolist() == pytest.approx(
        expected
    )


def test_equal_queries_have_no_variance_and_draws_of_one_class_have_no_area():
    scores, labels = np.tile([0.9, 0.2, 0.5], 6), np.tile([True, False, False], 6)
    assert set(bootstrap_roc_auc(scores, labels, np.arange(18) // 3, seed=0, rounds=50)) == {1.0}
    areas = bootstrap_roc_auc(
        np.array([0.9, 0.1]), np.array([True, False]), [0, 1], seed=0, rounds=200
    )
    assert 60 < len(areas) < 140, "half of the draws take one query twice"
    assert set(areas) == {1.0}


def test_shares_of_ties_and_their_intervals():
    """Of 2 × 3 pairs, two are equal with 0.5, and one is equal with 0.2."""
    scores = np.array([0.5, 0.2, 0.5, 0.5, 0.2])
    assert tied_share(scores, np.array([True, True, False, False, False])) == pytest.approx(3 / 6)
    assert tied_share(np.array([0.1, 0.2, 0.3]), np.array([True, False, False])) == 0
    assert tied_share(np.array([0.3, 0.2, 0.1]), np.array([True, False, False])) == 0
    assert share_interval(50, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)
    assert share_interval(10, 10) == pytest.approx((1 - 0.2775, 1.0), abs=1e-4)
