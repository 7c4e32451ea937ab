"""What is said of a judge's scores: entropies by hand, and when they cannot teach."""

import math

import numpy as np
import pytest
import torch

from trainer.teaching import cannot_teach, observed
from trainer.training_settings import LossSettings

CLEAR, LEVEL, WRONG = [0.9, 0.1, 0.2], [0.5, 0.5, 0.5], [0.2, 0.1, 0.9]


def test_what_is_observed_by_hand():
    """P of (3, 1)/4 and (1, 1)/2; Q of (1, 1)/2 and all but one-hot."""
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
    assert cannot_teach(np.array([CLEAR] * 3), 0.02) is None
    assert cannot_teach(np.empty((0, 3)), 0.02) is None, "no judge, no doubt"


def test_scores_that_are_all_alike_say_nothing_at_a_high_temperature():
    said = cannot_teach(np.array([CLEAR] * 3), 10.0)
    assert "median entropy of its soft labels is 1.10 of at most 1.10 nats, at loss.teacher_temperature = 10" in said
    assert "lower that temperature, or calibrate the judge" in said
    assert "positive first" not in said


def test_the_median_row_decides_the_entropy():
    assert cannot_teach(np.array([CLEAR, CLEAR, LEVEL]), 0.02) is None
    assert "median entropy" in cannot_teach(np.array([CLEAR, LEVEL, LEVEL]), 0.02)


@pytest.mark.parametrize(("behind", "warned"), [(2, False), (3, True)])
def test_the_positive_must_lead_in_half_of_the_rows(behind, warned):
    said = cannot_teach(np.array([WRONG] * behind + [CLEAR] * (4 - behind)), 0.02)
    assert (said is not None) == warned
    if said:
        assert "it does not put the positive first in 75% of 4 rows" in said
        assert "take another judge" in said
        assert "temperature" not in said, "no temperature changes an order"


def test_a_tie_is_no_lead_and_both_faults_are_told():
    said = cannot_teach(np.array([LEVEL] * 1200), 0.02)
    assert "1.10 of at most 1.10 nats" in said
    assert "first in 100% of 1,200 rows" in said
