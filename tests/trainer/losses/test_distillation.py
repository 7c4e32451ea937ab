"""The losses from a judge: values computed by hand, finite differences, extreme inputs, symmetries, and refusals."""

import math

import pytest
import torch

from trainer.losses.distillation import js_divergence, kl, margin_mse, symmetric_kl

DIVERGENCES = [symmetric_kl, js_divergence, kl]
LOSSES = [*DIVERGENCES, margin_mse]
ONE = {"student_temperature": 1.0, "teacher_temperature": 1.0}
SHARP = {"student_temperature": 0.005, "teacher_temperature": 0.005}


def some(rows=3, candidates=4):
    """Similarities and scores without special values."""
    dice = torch.Generator().manual_seed(0)
    student = torch.rand(rows, candidates, dtype=torch.float64, generator=dice).requires_grad_()
    return student, torch.rand(rows, candidates, dtype=torch.float64, generator=dice)


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


def test_kl_by_hand():
    """P = (1/2, 1/2), Q = (1/4, 3/4): Σ Q ln (Q / P), not Σ P ln (P / Q)."""
    loss = kl(torch.zeros(1, 2), torch.tensor([[0.0, math.log(3)]]), **ONE)
    assert loss.item() == pytest.approx(0.25 * math.log(1 / 2) + 0.75 * math.log(3 / 2))


def test_margin_mse_by_hand():
    """In one row the student's margins are 1 and 2, and the judge's margins are 4 and 2 at its temperature: (9 + 0) /
    2. In the other row they agree.
    """
    student = torch.tensor([[0.5, 0.0, -0.5], [0.1, 0.2, 0.3]])
    teacher = torch.tensor([[1.0, 0.0, 0.5], [0.3, 0.35, 0.4]])
    loss = margin_mse(student, teacher, student_temperature=0.5, teacher_temperature=0.25)
    assert loss.item() == pytest.approx(((1 - 4) ** 2 + 0) / 2 / 2)


@pytest.mark.parametrize("loss", LOSSES)
def test_agreement_costs_nothing(loss):
    scores = torch.rand(3, 5)
    assert loss(scores, scores, **ONE).item() == pytest.approx(0, abs=1e-6)
    assert loss(scores, scores + 7, **ONE).item() == pytest.approx(0, abs=1e-6)
    assert loss(
        scores / 2, scores, student_temperature=0.5, teacher_temperature=1
    ).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_by_finite_differences(loss):
    student, teacher = some()
    temperatures = {"student_temperature": 0.1, "teacher_temperature": 0.3}
    weights = torch.tensor([1.0, 0.5, 0.25], dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda s: loss(s, teacher, **temperatures, weights_B=weights), student
    )
    reference = teacher.clone().requires_grad_()
    loss(student, reference, **temperatures).backward()
    assert reference.grad is None, "the teacher is a constant"


def test_the_gradient_of_kl_is_the_difference_of_the_distributions():
    student, teacher = some()
    kl(student, teacher, **ONE).backward()
    assert torch.allclose(student.grad, (student.softmax(-1) - teacher.softmax(-1)).detach() / 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("student", [[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0], [0.5, 0.5, 0.5]])
@pytest.mark.parametrize("teacher", [[1.0, 0.0, 0.0], [0.0, 1.0, 1.0], [0.5, 0.5, 0.5]])
def test_extremes_stay_finite(loss, student, teacher, dtype):
    """A gap of ±1 is ±200 at this temperature, and Q is one-hot. Equal scores are the other extreme."""
    given = torch.tensor([student], dtype=dtype, requires_grad=True)
    value = loss(given, torch.tensor([teacher], dtype=dtype), **SHARP)
    value.backward()
    assert value.dtype == torch.float32
    assert 0 <= value.item() < math.inf
    assert given.grad.isfinite().all()
    agree = [one - student[0] for one in student] == [one - teacher[0] for one in teacher]
    assert (value.item() == 0) == agree
    assert loss is not js_divergence or value.item() <= math.log(2) + 1e-6
    assert agree or loss is js_divergence or given.grad.abs().max() > 1, (
        "the worse, the harder it pulls"
    )


def test_symmetric_kl_has_a_gradient_where_js_has_none():
    """The student is certain and wrong: the positive has .50, the negative .80, and τ = .02.

    The gradient of JS would be zero.
    """
    teacher = torch.tensor([[1.0, 0.0]])
    gradients = {}
    for divergence in DIVERGENCES:
        student = torch.tensor([[0.5, 0.8]], requires_grad=True)
        divergence(student, teacher, student_temperature=0.02, teacher_temperature=0.02).backward()
        gradients[divergence] = student.grad.abs().max().item()
    assert gradients[symmetric_kl] > 10
    assert gradients[js_divergence] < 1e-2


@pytest.mark.parametrize("loss", LOSSES)
def test_a_row_counts_as_much_as_it_weighs(loss):
    """The mean of weight × term is (1 · a + ½ · b + 0 · c) / 3.

    A row with weight 0 has no gradient, and weights of 1 change nothing.
    """
    student, teacher = some()
    a, b, _ = (loss(student[[row]], teacher[[row]], **ONE).item() for row in range(3))
    weighted = loss(student, teacher, **ONE, weights_B=torch.tensor([1.0, 0.5, 0.0]))
    assert weighted.item() == pytest.approx((a + b / 2) / 3)
    weighted.backward()
    assert student.grad[2].abs().max() == 0
    assert student.grad[:2].abs().min() > 0
    assert torch.equal(
        loss(student, teacher, **ONE, weights_B=torch.ones(3)), loss(student, teacher, **ONE)
    )


@pytest.mark.parametrize("loss", LOSSES)
def test_the_order_of_rows_and_of_negatives_does_not_matter(loss):
    student, teacher = some()
    rows, columns = [2, 0, 1], [0, 3, 1, 2]
    whole = loss(student, teacher, **ONE)
    moved = loss(student[rows][:, columns], teacher[rows][:, columns], **ONE)
    assert moved.item() == pytest.approx(whole.item(), rel=1e-12)
    assert loss(student, teacher[:, columns], **ONE).item() != pytest.approx(whole.item(), rel=1e-3)


@pytest.mark.parametrize("loss", LOSSES)
def test_halves_of_a_batch_average_to_the_whole(loss):
    """This holds for values and gradients, with weights, so accumulation is exact."""
    student, teacher = some(rows=4)
    weights = torch.tensor([1.0, 0.5, 0.25, 0.0], dtype=torch.float64)
    (whole,) = torch.autograd.grad(loss(student, teacher, **ONE, weights_B=weights), student)
    for at in (slice(0, 2), slice(2, 4)):
        (loss(student[at], teacher[at], **ONE, weights_B=weights[at]) / 2).backward()
    assert torch.allclose(student.grad, whole, rtol=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
def test_inputs_that_would_teach_nothing_are_refused(loss):
    with pytest.raises(ValueError, match="differs from the teacher's shape"):
        loss(torch.zeros(1, 2), torch.zeros(1, 3), **ONE)
    with pytest.raises(ValueError, match="over one candidate is constant"):
        loss(torch.zeros(1, 1), torch.zeros(1, 1), **ONE)
