"""The losses from labels: values computed by hand, finite differences, extreme inputs, and their sum as InfoNCE."""

import math

import pytest
import torch

from trainer.losses.contrastive import in_batch_contrast, infonce
from trainer.losses.distillation import kl

OWN = torch.tensor([[True, True, False, False, False], [False, False, True, True, False]])
KNOWN = torch.tensor([[False, False, False, True, False], [False, False, False, False, False]])
"""The fourth candidate answers the first query too, though it is the second row's."""
TARGET = torch.tensor([0, 2])
ALL = ~KNOWN


def similarities():
    dice = torch.Generator().manual_seed(0)
    return (2 * torch.rand(2, 5, dtype=torch.float64, generator=dice) - 1).requires_grad_()


def own(values, **options):
    return infonce(values, TARGET, ~OWN, temperature=0.5, **options)


def whole(values, **options):
    return infonce(values, TARGET, KNOWN, temperature=0.5, **options)


def rest(values, **options):
    return in_batch_contrast(values, OWN, ALL, temperature=0.5, **options)


LOSSES = [own, whole, rest]


def test_infonce_by_hand():
    """Two rows. The second row masks a known positive: −ln(3/5) and −ln(1/3)."""
    logits = torch.log(torch.tensor([[3.0, 1.0, 1.0], [7.0, 2.0, 1.0]]))
    masked = torch.tensor([[False, False, False], [True, False, False]])
    loss = infonce(logits, torch.tensor([0, 2]), masked, temperature=1.0)
    assert loss.item() == pytest.approx((-math.log(3 / 5) - math.log(1 / 3)) / 2, abs=1e-6)


def test_in_batch_contrast_by_hand():
    """Own candidates: 3 + 1 of 4 + 1 + 2 (7 is a known positive), and 2 + 1 of 10."""
    logits = torch.log(torch.tensor([[3.0, 1.0, 1.0, 7.0, 2.0], [3.0, 2.0, 2.0, 1.0, 2.0]]))
    loss = in_batch_contrast(logits, OWN, ALL, temperature=1.0)
    assert loss.item() == pytest.approx((-math.log(4 / 7) - math.log(3 / 10)) / 2)


def test_own_candidates_and_the_rest_make_infonce_over_the_batch():
    values = similarities()
    weights = torch.tensor([1.0, 0.25], dtype=torch.float64)
    parts = own(values, weights_B=weights) + rest(values, weights_B=weights)
    together = whole(values, weights_B=weights)
    assert parts.item() == pytest.approx(together.item(), rel=1e-12)
    assert torch.allclose(
        *(torch.autograd.grad(loss, values)[0] for loss in (parts, together)), rtol=1e-12
    )


def test_kl_and_the_rest_are_kl_over_the_batch_with_nothing_for_others():
    values = similarities()
    student = values[torch.arange(2)[:, None], torch.tensor([[0, 1], [2, 3]])]
    teacher = torch.tensor([[0.9, 0.6], [0.8, 0.1]], dtype=torch.float64)
    parts = kl(student, teacher, student_temperature=0.5, teacher_temperature=0.5) + rest(values)
    q = (teacher / 0.5).softmax(-1)
    log_p = (values / 0.5).masked_fill(~ALL, -torch.inf).log_softmax(-1)
    logs = torch.stack([log_p[0, :2], log_p[1, 2:4]])
    assert parts.item() == pytest.approx((q * (q.log() - logs)).sum().item() / 2, rel=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_by_finite_differences(loss):
    values = similarities()
    weights = torch.tensor([1.0, 0.5], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda given: loss(given, weights_B=weights), values)
    loss(values).backward()
    assert values.grad[0, 3] == 0, "a known positive is not pushed away"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("gap", [1.0, -1.0, 0.0])
def test_extremes_stay_finite(gap, dtype):
    values = torch.tensor([[gap, 0, 0, 0, 0], [0, 0, gap, 0, 0]], dtype=dtype, requires_grad=True)
    pick = infonce(values, TARGET, KNOWN, temperature=0.005)
    apart = in_batch_contrast(values, OWN, ALL, temperature=0.005)
    (pick + apart).backward()
    assert pick.dtype == apart.dtype == torch.float32
    assert pick.item() == pytest.approx(
        {1.0: 0, 0.0: math.log(20) / 2, -1.0: 200 + math.log(12) / 2}[gap], abs=1e-5
    )
    assert values.grad.isfinite().all()
    assert gap == 1.0 or values.grad.abs().max() > 1


@pytest.mark.parametrize("loss", LOSSES)
def test_a_row_counts_as_much_as_it_weighs(loss):
    values = similarities()
    weighted = loss(values, weights_B=torch.tensor([0.5, 0.0]))
    weighted.backward()
    assert values.grad[1].abs().max() == 0
    first, second = (
        loss(values, weights_B=torch.tensor(weights)) for weights in ([1.0, 0.0], [0.0, 1.0])
    )
    assert weighted.item() == pytest.approx(first.item() / 2)
    assert loss(values).item() == pytest.approx((first + second).item())


def test_the_order_of_rows_and_of_candidates_does_not_matter():
    values, rows, columns = similarities(), [1, 0], [3, 0, 4, 2, 1]
    own_there, all_there = (mask[rows][:, columns] for mask in (OWN, ALL))
    there = values[rows][:, columns]
    target = torch.tensor([3, 1])
    assert rest(values).item() == pytest.approx(
        in_batch_contrast(there, own_there, all_there, temperature=0.5).item(), rel=1e-12
    )
    assert whole(values).item() == pytest.approx(
        infonce(there, target, ~all_there, temperature=0.5).item(), rel=1e-12
    )


def test_a_row_that_holds_all_candidates_of_the_batch_costs_nothing_more():
    values = similarities()
    loss = in_batch_contrast(values, ALL, ALL, temperature=0.5)
    loss.backward()
    assert loss.item() == 0
    assert values.grad.abs().max() == 0


def test_a_row_without_negatives_costs_nothing():
    """All its candidates except the positive are known right answers."""
    values = similarities()
    masked = ~OWN | torch.tensor([[False, True, False, False, False], [False] * 5])
    loss = infonce(values, TARGET, masked, temperature=0.5)
    loss.backward()
    assert loss.item() == pytest.approx(own(values, weights_B=torch.tensor([0.0, 1.0])).item())
    assert values.grad[0].abs().max() == 0


def test_a_batch_of_one_row_that_has_no_negative_costs_nothing_and_ends_no_training():
    values = torch.zeros(1, 2, requires_grad=True)
    loss = infonce(values, torch.tensor([0]), torch.tensor([[False, True]]), temperature=1)
    loss.backward()
    assert loss.item() == 0
    assert values.grad.tolist() == [[0.0, 0.0]]


def test_infonce_refuses_a_masked_target_and_a_single_candidate():
    with pytest.raises(ValueError, match="target is masked"):
        infonce(torch.zeros(1, 2), torch.tensor([0]), torch.tensor([[True, False]]), temperature=1)
    with pytest.raises(
        ValueError, match="target is masked"
    ):  # the target is masked in one of two rows
        infonce(
            torch.zeros(2, 2),
            torch.tensor([0, 1]),
            torch.tensor([[False, True], [False, True]]),
            temperature=1,
        )
    with pytest.raises(ValueError, match="with one candidate"):
        infonce(
            torch.zeros(2, 1),
            torch.tensor([0, 0]),
            torch.zeros(2, 1, dtype=torch.bool),
            temperature=1,
        )
