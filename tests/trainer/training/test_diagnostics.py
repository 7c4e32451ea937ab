"""The warnings about a judge's scores: entropies computed by hand, and scores that teach nothing."""

import math

import numpy as np
import pytest
import torch

from trainer.data.dataset import Pool
from trainer.losses.settings import LossSettings
from trainer.training.diagnostics import labels_are_hard, observed, pool_is_covered, teacher_warning
from trainer.training.settings import EmbedderSettings

CLEAR, LEVEL, WRONG = [0.9, 0.1, 0.2], [0.5, 0.5, 0.5], [0.2, 0.1, 0.9]


def test_observed_values_by_hand():
    """P is the softmax of (3, 1)/4 and of (1, 1)/2. Q is the softmax of (1, 1)/2 and almost one-hot."""
    settings = LossSettings(student_temperature=0.5, teacher_temperature=0.1)
    student = torch.tensor([[math.log(3) / 2, 0.0], [0.2, 0.2]], requires_grad=True)
    seen = observed(settings, student, torch.tensor([[0.5, 0.5], [1.0, 0.0]]))
    quarter = -0.75 * math.log(0.75) - 0.25 * math.log(0.25)
    assert {name: one.value.item() for name, one in seen.items()} == pytest.approx(
        {
            "student_entropy": (quarter + math.log(2)) / 2,
            "teacher_entropy": (math.log(2) + 11 * math.exp(-10)) / 2,
            "teacher_one_hot": 0.5,
        },
        rel=1e-4,
    )
    assert not any(one.value.requires_grad for one in seen.values())
    assert set(observed(settings, student, None)) == {"student_entropy"}


def test_clear_scores_can_teach():
    assert teacher_warning(np.array([CLEAR] * 3), 0.02) is None
    assert teacher_warning(np.empty((0, 3)), 0.02) is None, "no judge, no doubt"


def test_equal_scores_teach_nothing_at_a_high_temperature():
    said = teacher_warning(np.array([CLEAR] * 3), 10.0)
    assert (
        "median entropy of its soft labels is 1.10 of at most 1.10 nats, at loss.teacher_temperature = 10"
        in said
    )
    assert "Lower that temperature, or calibrate the judge" in said
    assert "positive first" not in said


def test_the_median_row_decides_the_entropy():
    assert teacher_warning(np.array([CLEAR, CLEAR, LEVEL]), 0.02) is None
    assert "median entropy" in teacher_warning(np.array([CLEAR, LEVEL, LEVEL]), 0.02)


@pytest.mark.parametrize(("behind", "warned"), [(2, False), (3, True)])
def test_the_positive_must_lead_in_half_of_the_rows(behind, warned):
    said = teacher_warning(np.array([WRONG] * behind + [CLEAR] * (4 - behind)), 0.02)
    assert (said is not None) == warned
    if said:
        assert "the judge does not rank the positive first in 75% of 4 rows" in said
        assert "Use another judge" in said
        assert "temperature" not in said, "no temperature changes an order"


def test_a_tie_is_not_a_lead_and_both_faults_are_reported():
    said = teacher_warning(np.array([LEVEL] * 1200), 0.02)
    assert "1.10 of at most 1.10 nats" in said
    assert "first in 100% of 1,200 rows" in said


def test_the_median_row_decides_whether_labels_are_hard():
    """The positive leads by 0.8 and by 0.7.

    With τ = 0.02 the negatives have e⁻⁴⁰ and e⁻³⁵ of the positive's probability. With τ = 0.2 they have e⁻⁴ and e⁻³·⁵,
    which gives 0.22 nats.
    """
    said = labels_are_hard(np.array([CLEAR, CLEAR, LEVEL]), 0.02)
    assert said.startswith("the soft labels equal hard labels: their median entropy is 0.0000 nats")
    assert (
        "Raise loss.teacher_temperature (at 0.2 the entropy is 0.22), or use loss.name = 'infonce'"
        in said
    )
    assert labels_are_hard(np.array([CLEAR, LEVEL, LEVEL]), 0.02) is None
    assert labels_are_hard(np.array([CLEAR] * 3), 0.2) is None
    assert labels_are_hard(np.empty((0, 3)), 0.02) is None, "no judge, no soft labels"


@pytest.mark.parametrize(("share", "warned"), [(0.008, True), (0.009, False)])
def test_labels_are_hard_below_a_twentieth_of_a_nat(share, warned):
    """A negative with a probability of 0.008 gives an entropy of 0.0466 nats, and 0.009 gives 0.0514 nats."""
    lead = math.log((1 - share) / share) * 0.1
    assert (labels_are_hard(np.array([[lead, 0.0]]), 0.1) is not None) == warned


def training(**changes):
    return EmbedderSettings(
        corpus="c", triples="t", out="o", max_steps=10, batch_size=5, num_negatives=4, **changes
    )


@pytest.mark.parametrize(("items", "warned"), [(20, True), (21, False)])
def test_a_pool_is_covered_when_each_item_is_drawn_ten_times(items, warned):
    """10 steps × 5 rows × 4 negatives."""
    said = pool_is_covered(training(), [Pool("s", 7, items)])
    assert (said is not None) == warned
    if said:
        assert "200 negatives are drawn from 20 items, each about 10 times. Random" in said
        assert (
            "Import more items into the corpus, or lower max_steps, batch_size or num_negatives"
            in said
        )


def test_a_pool_gets_the_share_of_its_rows_and_the_worst_is_named():
    """A quarter of 2 × 50 rows, each with 4 negatives and, in a batch, its positive: 125 items; and 375 items."""
    pools = [Pool("few", 1, 5), Pool("many", 3, 37), Pool("large", 0, 9)]
    said = pool_is_covered(
        training(gradient_accumulation_steps=2, loss=LossSettings(in_batch_weight=1)), pools
    )
    assert (
        "the pool of 'few' is small: 125 negatives are drawn from 5 items, each about 25 times"
        in said
    )
    assert "(2 of 3 pools are too small)" in said


def test_a_set_of_labels_is_not_a_small_pool():
    """One set has eight rows for each label, the other seven and a half."""
    assert pool_is_covered(training(), [Pool("classes", 16, 2)]) is None
    assert "from 2 items" in pool_is_covered(training(), [Pool("s", 15, 2)])
