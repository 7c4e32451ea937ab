"""The losses: values by hand, gradients by finite differences, extremes, and what must not be accepted."""

import math

import pytest
import torch

from trainer.losses import infonce, js_divergence, symmetric_kl

DIVERGENCES = [symmetric_kl, js_divergence]
ONE = {"student_temperature": 1.0, "teacher_temperature": 1.0}


def test_symmetric_kl_by_hand():
    """P = (1/2, 1/2), Q = (1/4, 3/4): (KL(P‖Q) + KL(Q‖P)) / 2 = ln 3 / 8."""
    loss = symmetric_kl(torch.zeros(1, 2), torch.tensor([[0.0, math.log(3)]]), **ONE)
    assert loss.item() == pytest.approx(math.log(3) / 8)


def test_js_by_hand():
    """P = (1/2, 1/2), Q = (1/4, 3/4), M = (3/8, 5/8)."""
    loss = js_divergence(torch.zeros(1, 2), torch.tensor([[0.0, math.log(3)]]), **ONE)
    kl_p = 0.5 * math.log(4 / 3) + 0.5 * math.log(4 / 5)
    kl_q = 0.25 * math.log(2 / 3) + 0.75 * math.log(6 / 5)
    assert loss.item() == pytest.approx((kl_p + kl_q) / 2, abs=1e-6)


def test_infonce_by_hand():
    """Two rows; the second masks a known positive: −ln(3/5) and −ln(1/3)."""
    logits = torch.log(torch.tensor([[3.0, 1.0, 1.0], [7.0, 2.0, 1.0]]))
    masked = torch.tensor([[False, False, False], [True, False, False]])
    loss = infonce(logits, torch.tensor([0, 2]), masked, temperature=1.0)
    assert loss.item() == pytest.approx((-math.log(3 / 5) - math.log(1 / 3)) / 2, abs=1e-6)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_agreement_costs_nothing(divergence):
    scores = torch.rand(3, 5)
    assert divergence(scores, scores, **ONE).item() == pytest.approx(0, abs=1e-6)
    assert divergence(scores, scores + 7, **ONE).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_gradients_by_finite_differences(divergence):
    torch.manual_seed(0)
    student = torch.rand(3, 4, dtype=torch.float64, requires_grad=True)
    teacher = torch.rand(3, 4, dtype=torch.float64)
    temperatures = {"student_temperature": 0.1, "teacher_temperature": 0.3}
    assert torch.autograd.gradcheck(lambda s: divergence(s, teacher, **temperatures), student)
    reference = teacher.clone().requires_grad_()
    assert divergence(student, reference, **temperatures).grad_fn is not None
    divergence(student, reference, **temperatures).backward()
    assert reference.grad is None, "the teacher is a constant"


def test_the_gradient_of_infonce_by_finite_differences():
    torch.manual_seed(0)
    similarities = torch.rand(2, 4, requires_grad=True)
    masked = torch.tensor([[False, True, False, False], [False, False, False, False]])
    target = torch.tensor([0, 1])
    infonce(similarities, target, masked, temperature=0.5).backward()
    step = 1e-2
    for row in range(2):
        for column in range(4):
            moved = torch.zeros(2, 4)
            moved[row, column] = step
            slope = (
                infonce(similarities.detach() + moved, target, masked, temperature=0.5)
                - infonce(similarities.detach() - moved, target, masked, temperature=0.5)
            ) / (2 * step)
            assert similarities.grad[row, column].item() == pytest.approx(slope.item(), abs=1e-3)
    assert similarities.grad[0, 1] == 0


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("gap", [1.0, -1.0])
def test_extremes_stay_finite(divergence, gap):
    student = torch.tensor([[gap, 0.0, 0.0]], requires_grad=True)
    loss = divergence(student, torch.tensor([[1.0, 0.0, 0.0]]), student_temperature=0.005, teacher_temperature=0.005)
    loss.backward()
    assert math.isfinite(loss.item())
    assert student.grad.isfinite().all()
    assert divergence is not js_divergence or loss.item() <= math.log(2) + 1e-6


def test_where_js_is_silent_symmetric_kl_still_pulls():
    """Confidently wrong: positive .50, negative .80 at τ = .02: what JS would lose."""
    teacher = torch.tensor([[1.0, 0.0]])
    gradients = {}
    for divergence in DIVERGENCES:
        student = torch.tensor([[0.5, 0.8]], requires_grad=True)
        divergence(student, teacher, student_temperature=0.02, teacher_temperature=0.02).backward()
        gradients[divergence] = student.grad.abs().max().item()
    assert gradients[symmetric_kl] > 10
    assert gradients[js_divergence] < 1e-2


@pytest.mark.parametrize("loss", [*DIVERGENCES, infonce])
def test_a_row_counts_as_much_as_it_weighs(loss):
    """Mean of weight × term: (1 · a + ½ · b + 0 · c) / 3; no gradient where the weight is 0; ones change nothing."""

    def of(student, rows=slice(None), **weights):
        if loss is infonce:
            target, masked = torch.zeros(3, dtype=torch.long)[rows], torch.zeros(3, 4, dtype=torch.bool)[rows]
            return infonce(student[rows], target, masked, temperature=0.5, **weights)
        return loss(student[rows], teacher[rows], **ONE, **weights)

    torch.manual_seed(0)
    student, teacher = torch.rand(3, 4, requires_grad=True), torch.rand(3, 4)
    a, b, _ = (of(student, [row]).item() for row in range(3))
    weighted = of(student, weights_B=torch.tensor([1.0, 0.5, 0.0]))
    assert weighted.item() == pytest.approx((a + b / 2) / 3)
    weighted.backward()
    assert student.grad[2].abs().max() == 0
    assert student.grad[:2].abs().min() > 0
    assert torch.equal(of(student, weights_B=torch.ones(3)), of(student))


def test_halves_of_a_batch_average_to_the_whole():
    student, teacher = torch.rand(4, 3), torch.rand(4, 3)
    whole = symmetric_kl(student, teacher, **ONE)
    halves = [symmetric_kl(student[i : i + 2], teacher[i : i + 2], **ONE) for i in (0, 2)]
    assert whole.item() == pytest.approx(sum(halves).item() / 2)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_what_would_teach_nothing_is_refused(divergence):
    with pytest.raises(ValueError, match="differ in shape"):
        divergence(torch.zeros(1, 2), torch.zeros(1, 3), **ONE)
    with pytest.raises(ValueError, match="one candidate a row"):
        divergence(torch.zeros(1, 1), torch.zeros(1, 1), **ONE)


def test_infonce_refuses_a_masked_target_and_a_row_without_negatives():
    with pytest.raises(ValueError, match="target is masked"):
        infonce(torch.zeros(1, 2), torch.tensor([0]), torch.tensor([[True, False]]), temperature=1)
    with pytest.raises(ValueError, match="no negative"):
        infonce(torch.zeros(1, 2), torch.tensor([0]), torch.tensor([[False, True]]), temperature=1)
