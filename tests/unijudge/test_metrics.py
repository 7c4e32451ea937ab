"""Measures of rankings and of scores: values worked out by hand, with ties."""

import math

import numpy as np
import pytest

from unijudge.metrics import (
    calibration_error,
    gold_ranks,
    kendall_tau,
    ndcg,
    precision_at_1,
    recall_at,
    roc_auc,
)


def test_equal_scores_count_half_in_the_area():
    """Of 2 × 3 pairs two are equal, and one positive is below all negatives: (½ + ½) / 6."""
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
    """0.95 and 1 are one bin of confidence .975, half of it right; 0.25 twice is another, half of it right."""
    probabilities, labels = np.array([0.95, 1.0, 0.25, 0.25]), np.array([True, False, False, True])
    assert calibration_error(probabilities, labels) == pytest.approx(0.475 / 2 + 0.25 / 2)
    assert calibration_error(np.array([0.11, 0.19]), np.array([False, True])) == pytest.approx(0.35), "ten bins"
    assert calibration_error(np.array([0.11, 0.19]), np.array([False, True]), bins=100) == pytest.approx(0.46)


def test_ties_are_counted_out_of_an_agreement():
    """Of six pairs three agree and one does not; five are in order on each side: (3 − 1) / √(5 · 5)."""
    left, right = np.array([1.0, 2.0, 2.0, 3.0]), np.array([1.0, 3.0, 2.0, 2.0])
    assert kendall_tau(left, right) == pytest.approx(0.4)
    assert kendall_tau(left, -right) == pytest.approx(-0.4)
    assert math.isnan(kendall_tau(left, np.zeros(4)))
    assert math.isnan(kendall_tau(np.zeros(4), right))


def test_gain_counts_the_first_k_and_the_best_that_k_can_hold():
    """Ranks 2 and 4 at k = 3: 1 / log₂ 3 of 1 + 1 / log₂ 3. Three right ones fill k = 2."""
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
