"""The losses that learn from a judge's scores of a row's own candidates. Pure functions without a model or a rank.

Letters: B queries · K candidates of one query, column 0 the positive.

The functions compute in float64 for float64 inputs, otherwise in float32, with log_softmax because a lower bound
inside the logarithm would remove the gradient where the student is most wrong. Rows do not influence each other, so the
mean over micro-batches of equal size is the mean over the whole batch. The losses that need no judge are in
`contrastive.py`.
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
    """Returns the mean symmetric Kullback-Leibler divergence between two rankings of the same candidates.

    Row b holds the scores of query b's K candidates. Both rows become distributions,

        P = softmax(student / t_s),   Q = softmax(teacher / t_t),

        loss = mean over b of  w_b [ KL(P || Q) + KL(Q || P) ] / 2.

    The loss has no upper bound.

    Args:
        student_BK: Cosine similarities, in [-1, 1]. Gradients flow through these.
        teacher_BK: Judge scores, in [0, 1]; treated as constants.
        student_temperature: The divisor of the student's row. Greater than 0.
        teacher_temperature: The divisor of the teacher's row. Greater than 0. A smaller value makes Q sharper.
        weights_B: The weight w of each row, in [0, 1]. None: every weight is 1. The sum is divided by the number of
            rows, not by the sum of weights, so a batch of rows with low weights has a smaller loss.

    Returns:
        A scalar ≥ 0, in nats; zero exactly when P and Q agree in every row.

    Raises:
        ValueError: The shapes differ, or K is 1. A distribution over one candidate is constant, so the loss and its
            gradient would always be zero.

    Example:
        >>> even, leaning = torch.zeros(1, 2), torch.tensor([[0.0, math.log(3.0)]])
        >>> round(symmetric_kl(even, leaning, student_temperature=1, teacher_temperature=1).item(), 4)
        0.1373

    Source:
        UniME-V2 (arXiv 2510.13515), which calls this loss "JS-Divergence". The Jensen-Shannon divergence itself is
        `js_divergence`.
    """
    log_p, log_q = _log_distributions(
        student_BK, teacher_BK, student_temperature, teacher_temperature
    )
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
    """Returns the mean Jensen-Shannon divergence between two rankings of the same candidates.

    With P and Q as in `symmetric_kl` and M = (P + Q) / 2,

        loss = mean over b of  w_b [ KL(P || M) + KL(Q || M) ] / 2.

    The loss of a row is at most ln 2, so a single query with a confident judge cannot dominate a batch. But the
    gradient vanishes where the student is confidently wrong.

    Args:
        student_BK: Cosine similarities, in [-1, 1]. Gradients flow through these.
        teacher_BK: Judge scores, in [0, 1]; treated as constants.
        student_temperature: The divisor of the student's row. Greater than 0.
        teacher_temperature: The divisor of the teacher's row. Greater than 0.
        weights_B: As in `symmetric_kl`.

    Returns:
        A scalar in [0, ln 2], in nats; zero exactly when P and Q agree in every row.

    Raises:
        ValueError: As `symmetric_kl`.

    Example:
        >>> even, leaning = torch.zeros(1, 2), torch.tensor([[0.0, math.log(3.0)]])
        >>> round(js_divergence(even, leaning, student_temperature=1, teacher_temperature=1).item(), 4)
        0.0338

    Source:
        Lin, "Divergence measures based on the Shannon entropy", IEEE Trans. Information Theory 37(1), 1991.
    """
    log_p, log_q = _log_distributions(
        student_BK, teacher_BK, student_temperature, teacher_temperature
    )
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
    """Returns the mean Kullback-Leibler divergence of the student's ranking from the teacher's, the usual distillation.

    With P and Q as in `symmetric_kl`,

        loss = mean over b of  w_b KL(Q || P),   with the gradient  w_b (P − Q) / B  on a candidate's logit.

    The loss differs from cross-entropy with soft labels by the entropy of Q, which is a constant. If Q is one-hot, the
    loss equals `infonce` over the row's own candidates.

    Args:
        student_BK: Cosine similarities, in [-1, 1]. Gradients flow through these.
        teacher_BK: Judge scores, in [0, 1]; treated as constants.
        student_temperature: The divisor of the student's row. Greater than 0.
        teacher_temperature: The divisor of the teacher's row. Greater than 0.
        weights_B: As in `symmetric_kl`.

    Returns:
        A scalar ≥ 0, in nats; zero exactly when P and Q agree in every row. Not scaled by the temperatures.

    Raises:
        ValueError: As `symmetric_kl`.

    Example:
        >>> even, leaning = torch.zeros(1, 2), torch.tensor([[0.0, math.log(3.0)]])
        >>> round(kl(even, leaning, student_temperature=1, teacher_temperature=1).item(), 4)
        0.1308

    Source:
        Hinton et al., "Distilling the knowledge in a neural network", arXiv 1503.02531.
    """
    log_p, log_q = _log_distributions(
        student_BK, teacher_BK, student_temperature, teacher_temperature
    )
    return weighted_mean((log_q.exp() * (log_q - log_p)).sum(-1), weights_B)


def margin_mse(
    student_BK: Tensor,
    teacher_BK: Tensor,
    *,
    student_temperature: float,
    teacher_temperature: float,
    weights_B: Tensor | None = None,
) -> Tensor:
    """Returns the mean squared difference between the student's and the teacher's margins.

    A margin is the score of the positive minus the score of a negative.

        loss = mean over b of  w_b mean over k ≥ 1 of  [ (s_b0 − s_bk) / t_s − (q_b0 − q_bk) / t_t ]².

    At temperatures of 1 this is the loss of the source, which compares raw outputs. Here cosines and judge scores are
    both bounded, so the temperatures have the same role as in `symmetric_kl`: only their ratio moves the optimum, and
    their size scales the loss. The loss does not use the judge's log-odds for two reasons. Log-odds are unbounded, so a
    cosine cannot match them. And a label of 0 or 1 from a person or a fallback has no finite log-odds.

    Args:
        student_BK: Cosine similarities, in [-1, 1]. Gradients flow through these.
        teacher_BK: Judge scores, in [0, 1]; treated as constants.
        student_temperature: The divisor of the student's margins. Greater than 0.
        teacher_temperature: The divisor of the teacher's margins. Greater than 0.
        weights_B: As in `symmetric_kl`.

    Returns:
        A scalar ≥ 0, in squared logits; zero exactly when all margins agree.

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
    student_BK, teacher_BK = _logits(
        student_BK, teacher_BK, student_temperature, teacher_temperature
    )
    ahead = (student_BK[:, :1] - student_BK[:, 1:]) - (teacher_BK[:, :1] - teacher_BK[:, 1:])
    return weighted_mean(ahead.square().mean(-1), weights_B)


def weighted_mean(terms_B: Tensor, weights_B: Tensor | None) -> Tensor:
    """Returns the mean of weight × term over rows.

    The sum is not divided by the sum of weights, so the mean over micro-batches is the mean over the whole batch.

    Example:
        >>> weighted_mean(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 0.0])).item()
        0.5
    """
    return terms_B.mean() if weights_B is None else (weights_B * terms_B).mean()


def _log_distributions(
    student_BK: Tensor, teacher_BK: Tensor, student_temperature: float, teacher_temperature: float
) -> tuple[Tensor, Tensor]:
    student_BK, teacher_BK = _logits(
        student_BK, teacher_BK, student_temperature, teacher_temperature
    )
    return F.log_softmax(student_BK, -1), F.log_softmax(teacher_BK, -1)


def _logits(
    student_BK: Tensor, teacher_BK: Tensor, student_temperature: float, teacher_temperature: float
) -> tuple[Tensor, Tensor]:
    if student_BK.shape != teacher_BK.shape:
        raise ValueError(
            f"the student's shape {tuple(student_BK.shape)} differs from the teacher's shape {tuple(teacher_BK.shape)}"
        )
    if student_BK.shape[-1] < 2:
        raise ValueError(
            "a distribution over one candidate is constant. Give each row at least one negative"
        )
    student_BK = to_float32(student_BK)
    return student_BK / student_temperature, teacher_BK.detach().to(
        student_BK.dtype
    ) / teacher_temperature


def to_float32(values: Tensor) -> Tensor:
    """Returns values in float32. Values in float64 are returned unchanged."""
    return values if values.dtype == torch.float64 else values.float()
