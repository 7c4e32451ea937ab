"""What a student can learn from a judge's scores of a row's own candidates: pure functions; no model, no rank.

Letters: B queries · K candidates of one query, column 0 the positive.
Everything is computed in float32, or float64 where that is given, with log_softmax: a floor inside the logarithm would
kill the gradient where the student is most wrong. Rows never mix: micro-batches of equal size average to the whole.
What a student learns from labels alone, and from the other rows of a batch, is in `contrastive.py`.
"""

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor


def symmetric_kl(
    student_BK: Tensor,
    teacher_BK: Tensor,
    *,
    student_temperature: float,
    teacher_temperature: float,
    weights_B: Tensor | None = None,
) -> Tensor:
    """Mean symmetric Kullback-Leibler divergence between two rankings of the same candidates.

    Row b holds the scores of query b's K candidates. Both rows become distributions,

        P = softmax(student / t_s),   Q = softmax(teacher / t_t),

        loss = mean over b of  w_b [ KL(P || Q) + KL(Q || P) ] / 2.

    Unbounded.

    Args:
        student_BK: Cosine similarities, in [-1, 1]. Gradients flow through these.
        teacher_BK: Judge scores, in [0, 1]; treated as constants.
        student_temperature: Divides the student's row. Greater than 0.
        teacher_temperature: Divides the teacher's row. Greater than 0; smaller is sharper.
        weights_B: w, of each row, 0 … 1; none: 1. The mean is over rows, not over weights, so a batch of light rows
            weighs less than another.

    Returns:
        A scalar ≥ 0, in nats; zero exactly when every pair of rows agrees.

    Raises:
        ValueError: The shapes differ, or K is 1: a distribution over one candidate is constant, so the loss and its
            gradient would be zero without a word.

    Example:
        >>> even, leaning = torch.zeros(1, 2), torch.tensor([[0.0, math.log(3.0)]])
        >>> round(symmetric_kl(even, leaning, student_temperature=1, teacher_temperature=1).item(), 4)
        0.1373

    Source:
        UniME-V2 (arXiv 2510.13515), which calls it "JS-Divergence"; the true one is `js_divergence`.
    """
    log_p, log_q = _log_distributions(student_BK, teacher_BK, student_temperature, teacher_temperature)
    # KL(P‖Q) + KL(Q‖P) = Σ (P − Q)(ln P − ln Q)
    return weighted_mean(((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(-1), weights_B) / 2


def js_divergence(
    student_BK: Tensor,
    teacher_BK: Tensor,
    *,
    student_temperature: float,
    teacher_temperature: float,
    weights_B: Tensor | None = None,
) -> Tensor:
    """Mean Jensen-Shannon divergence between two rankings of the same candidates.

    With P and Q as in `symmetric_kl` and M = (P + Q) / 2,

        loss = mean over b of  w_b [ KL(P || M) + KL(Q || M) ] / 2.

    Bounded by ln 2, so one query with a confident judge cannot swamp a batch; but its gradient vanishes where the
    student is confidently wrong.

    Args:
        student_BK: Cosine similarities, in [-1, 1]. Gradients flow through these.
        teacher_BK: Judge scores, in [0, 1]; treated as constants.
        student_temperature: Divides the student's row. Greater than 0.
        teacher_temperature: Divides the teacher's row. Greater than 0.
        weights_B: As in `symmetric_kl`.

    Returns:
        A scalar in [0, ln 2], in nats; zero exactly when every pair of rows agrees.

    Raises:
        ValueError: As `symmetric_kl`.

    Example:
        >>> even, leaning = torch.zeros(1, 2), torch.tensor([[0.0, math.log(3.0)]])
        >>> round(js_divergence(even, leaning, student_temperature=1, teacher_temperature=1).item(), 4)
        0.0338

    Source:
        Lin, "Divergence measures based on the Shannon entropy", IEEE Trans. Information Theory 37(1), 1991.
    """
    log_p, log_q = _log_distributions(student_BK, teacher_BK, student_temperature, teacher_temperature)
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)
    terms_B = (log_p.exp() * (log_p - log_m) + log_q.exp() * (log_q - log_m)).sum(-1)
    return weighted_mean(terms_B, weights_B) / 2


def kl(
    student_BK: Tensor,
    teacher_BK: Tensor,
    *,
    student_temperature: float,
    teacher_temperature: float,
    weights_B: Tensor | None = None,
) -> Tensor:
    """Mean Kullback-Leibler divergence of the student's ranking from the teacher's: the usual distillation.

    With P and Q as in `symmetric_kl`,

        loss = mean over b of  w_b KL(Q || P),   its gradient on a candidate's logit  w_b (P − Q) / B.

    It differs from cross-entropy with soft labels by the entropy of Q, which is a constant. Where Q is one-hot it is
    `infonce` over the row's own candidates.

    Args:
        student_BK: Cosine similarities, in [-1, 1]. Gradients flow through these.
        teacher_BK: Judge scores, in [0, 1]; treated as constants.
        student_temperature: Divides the student's row. Greater than 0.
        teacher_temperature: Divides the teacher's row. Greater than 0.
        weights_B: As in `symmetric_kl`.

    Returns:
        A scalar ≥ 0, in nats; zero exactly when every pair of rows agrees. Not scaled by the temperatures.

    Raises:
        ValueError: As `symmetric_kl`.

    Example:
        >>> even, leaning = torch.zeros(1, 2), torch.tensor([[0.0, math.log(3.0)]])
        >>> round(kl(even, leaning, student_temperature=1, teacher_temperature=1).item(), 4)
        0.1308

    Source:
        Hinton et al., "Distilling the knowledge in a neural network", arXiv 1503.02531.
    """
    log_p, log_q = _log_distributions(student_BK, teacher_BK, student_temperature, teacher_temperature)
    return weighted_mean((log_q.exp() * (log_q - log_p)).sum(-1), weights_B)


def margin_mse(
    student_BK: Tensor,
    teacher_BK: Tensor,
    *,
    student_temperature: float,
    teacher_temperature: float,
    weights_B: Tensor | None = None,
) -> Tensor:
    """Mean squared difference of margins: by how much the positive leads each negative, for student and teacher.

        loss = mean over b of  w_b mean over k ≥ 1 of  [ (s_b0 − s_bk) / t_s − (q_b0 − q_bk) / t_t ]².

    At temperatures of 1 this is the source's, which compares raw outputs. Ours are bounded alike, cosines and scores,
    so the temperatures are what they are in `symmetric_kl`: their ratio alone moves the optimum, their size scales the
    loss. The judge's log-odds are not taken: they are unbounded, which no cosine can follow, and a label that a person
    or a fallback gave (0 or 1) has none.

    Args:
        student_BK: Cosine similarities, in [-1, 1]. Gradients flow through these.
        teacher_BK: Judge scores, in [0, 1]; treated as constants.
        student_temperature: Divides the student's margins. Greater than 0.
        teacher_temperature: Divides the teacher's margins. Greater than 0.
        weights_B: As in `symmetric_kl`.

    Returns:
        A scalar ≥ 0, a squared logit; zero exactly when all margins agree.

    Raises:
        ValueError: As `symmetric_kl`.

    Example:
        >>> student, teacher = torch.tensor([[0.5, 0.25, 0.0]]), torch.tensor([[1.0, 0.0, 0.5]])
        >>> margin_mse(student, teacher, student_temperature=1, teacher_temperature=1).item()  # (0.75² + 0²) / 2
        0.28125

    Source:
        Hofstätter et al., "Improving efficient neural ranking models with cross-architecture knowledge distillation",
        arXiv 2010.02666.
    """
    student_BK, teacher_BK = _logits(student_BK, teacher_BK, student_temperature, teacher_temperature)
    ahead = (student_BK[:, :1] - student_BK[:, 1:]) - (teacher_BK[:, :1] - teacher_BK[:, 1:])
    return weighted_mean(ahead.square().mean(-1), weights_B)


def weighted_mean(terms_B: Tensor, weights_B: Tensor | None) -> Tensor:
    """Mean over rows of weight × term; not divided by the weights, so that micro-batches average to the whole.

    Example:
        >>> weighted_mean(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 0.0])).item()
        0.5
    """
    return terms_B.mean() if weights_B is None else (weights_B * terms_B).mean()


def _log_distributions(
    student_BK: Tensor, teacher_BK: Tensor, student_temperature: float, teacher_temperature: float
) -> tuple[Tensor, Tensor]:
    student_BK, teacher_BK = _logits(student_BK, teacher_BK, student_temperature, teacher_temperature)
    return F.log_softmax(student_BK, -1), F.log_softmax(teacher_BK, -1)


def _logits(
    student_BK: Tensor, teacher_BK: Tensor, student_temperature: float, teacher_temperature: float
) -> tuple[Tensor, Tensor]:
    if student_BK.shape != teacher_BK.shape:
        raise ValueError(f"student {tuple(student_BK.shape)} and teacher {tuple(teacher_BK.shape)} differ in shape")
    if student_BK.shape[-1] < 2:
        raise ValueError("one candidate a row: its distribution is constant; give at least one negative")
    student_BK = to_float32(student_BK)
    return student_BK / student_temperature, teacher_BK.detach().to(student_BK.dtype) / teacher_temperature


def to_float32(values: Tensor) -> Tensor:
    """In float32, or as they are in float64."""
    return values if values.dtype == torch.float64 else values.float()
