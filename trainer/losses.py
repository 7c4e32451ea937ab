"""Losses, as pure functions of similarities and scores; no model, no rank, no settings.

Letters: B queries · K candidates of one query, column 0 the positive · U distinct candidates of a batch.
Everything is computed in float32 with log_softmax: a floor inside the logarithm would kill the gradient where the
student is most wrong.
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

    Unbounded. The terms of different queries never mix: micro-batches of equal size average to the whole.

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


def infonce(
    similarities_BU: Tensor,
    target_B: Tensor,
    masked_BU: Tensor,
    *,
    temperature: float,
    weights_B: Tensor | None = None,
) -> Tensor:
    """Mean cross-entropy of picking each query's positive among its candidates.

        loss = mean over b of  −w_b ln [ e^(s_bt / t) / Σ_u e^(s_bu / t) ],   t the target's column, u not masked.

    Args:
        similarities_BU: Cosine similarities of each query with every distinct candidate of the batch, in [-1, 1].
        target_B: The column of each query's positive.
        masked_BU: True where a column is not a negative of the row: another known positive, or another row's candidate
            when only own candidates count.
        temperature: Divides the similarities. Greater than 0.
        weights_B: As in `symmetric_kl`.

    Returns:
        A scalar ≥ 0, in nats.

    Raises:
        ValueError: A target is masked, or a row has no negative: its loss would be zero without a word.

    Example:
        >>> even = infonce(torch.zeros(1, 3), torch.tensor([0]), torch.zeros(1, 3, dtype=torch.bool), temperature=1)
        >>> round(even.item(), 4)  # ln 3
        1.0986

    Source:
        van den Oord et al., "Representation learning with contrastive predictive coding", arXiv 1807.03748.
    """
    if masked_BU.gather(1, target_B[:, None]).any():
        raise ValueError("infonce: a target is masked; a query's own positive must stay in its row")
    if ((~masked_BU).sum(1) < 2).any():
        raise ValueError("infonce: a row has no negative; its loss would be zero whatever the model does")
    logits_BU = (similarities_BU.float() / temperature).masked_fill(masked_BU, -torch.inf)
    return weighted_mean(F.cross_entropy(logits_BU, target_B, reduction="none"), weights_B)


def weighted_mean(terms_B: Tensor, weights_B: Tensor | None) -> Tensor:
    """Mean over rows of weight × term; not divided by the weights, so that micro-batches average to the whole.

    Example:
        >>> weighted_mean(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 0.0])).item()
        0.5
    """
    return terms_B.mean() if weights_B is None else (weights_B.to(terms_B.dtype) * terms_B).mean()


def _log_distributions(
    student_BK: Tensor, teacher_BK: Tensor, student_temperature: float, teacher_temperature: float
) -> tuple[Tensor, Tensor]:
    if student_BK.shape != teacher_BK.shape:
        raise ValueError(f"student {tuple(student_BK.shape)} and teacher {tuple(teacher_BK.shape)} differ in shape")
    if student_BK.shape[-1] < 2:
        raise ValueError("one candidate a row: its distribution is constant; give at least one negative")
    student_BK = student_BK if student_BK.dtype == torch.float64 else student_BK.float()
    log_p = F.log_softmax(student_BK / student_temperature, -1)
    log_q = F.log_softmax(teacher_BK.detach().to(log_p.dtype) / teacher_temperature, -1)
    return log_p, log_q
