"""Measures of how much a student can learn from a judge's scores and from a pool of items.

A training prints warnings before its first step, and logs the measures of the scores in every step.

Letters: N all rows · B rows of a batch · K candidates of a row, column 0 the positive.
Q and P are distributions over the candidates of a row: Q is the judge's, P the student's.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor

from trainer.data.dataset import Pool
from trainer.losses.distillation import to_float32
from trainer.losses.settings import LossSettings
from trainer.losses.terms import Observed
from trainer.training.settings import EmbedderSettings

ONE_HOT = 0.99
"""The probability above which a distribution counts as one-hot."""
VAGUE = 0.9
"""The share of the largest possible entropy above which the scores of a typical row carry almost no information."""
HARD = 0.05
"""An entropy in nats. Below this entropy the negatives of a typical row share less than one percent of the probability:
the distribution (0.99, 0.01) has 0.056 nats."""
SOFTER = (0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
"""The temperatures that a warning may recommend."""
OFTEN = 10
"""The number of draws per item from which random negatives cover a pool. Random draws meet every item of a pool of M
items after about M · ln M draws, so ten draws per item are enough for M = 22,000. In trials with the demo's data, mined
negatives gained nothing over random negatives when each item was drawn 12 times (a pool of 500 items). Mined negatives
gained 0.022 precision@1 when each item was drawn 5 times (a pool of 4,000 items)."""
LABELS = 8
"""The number of rows per item from which a pool counts as a set of labels. More data does not make a set of labels
larger. For comparison, an image with five captions has five rows."""


def observed(
    settings: LossSettings, student_BK: Tensor, teacher_BK: Tensor | None
) -> dict[str, Observed]:
    """Returns what is logged for a batch: the mean entropies of P and Q in nats, and the share of rows with one-hot Q.

    Args:
        settings: The settings of the loss, with both temperatures.
        student_BK: Cosine similarities of each query with its own candidates.
        teacher_BK: Judge scores, or None. Without scores, only the entropy of P is returned.
    """
    seen = {"student_entropy": _distributions(student_BK, settings.student_temperature)[1].mean()}
    if teacher_BK is not None:
        teacher_q, entropies_B = _distributions(teacher_BK, settings.teacher_temperature)
        seen["teacher_entropy"] = entropies_B.mean()
        seen["teacher_one_hot"] = (teacher_q.amax(-1) > ONE_HOT).float().mean()
    return {name: Observed(value) for name, value in seen.items()}


def teacher_warning(teacher_NK: NDArray[np.float64], temperature: float) -> str | None:
    """Returns a warning if a student can learn little from the judge's scores. Otherwise returns None.

    There are two reasons to warn. The scores of a typical row are almost uniform: the median entropy of
    Q = softmax(scores / temperature) is more than 0.9 of the largest entropy, ln K. Or the scores often contradict the
    labels: in more than half of the rows a negative scores at least as high as the positive.

    Args:
        teacher_NK: Judge scores in [0, 1] of judged rows, the positive first.
        temperature: The temperature of the teacher. Greater than 0.

    Returns:
        The reasons with their numbers, and what to do; or None. Always None without rows.

    Example:
        >>> teacher_warning(np.array([[0.9, 0.1, 0.2]]), 0.02) is None
        True
        >>> teacher_warning(np.array([[0.50, 0.51, 0.49]]), 1.0)[:60]
        'the judge teaches little: the median entropy of its soft lab'
    """
    if not len(teacher_NK):
        return None
    rows, largest = len(teacher_NK), math.log(teacher_NK.shape[1])
    entropy = _median_entropy(teacher_NK, temperature)
    behind = float((teacher_NK[:, 1:].max(1) >= teacher_NK[:, 0]).mean())
    reasons, cures = [], []
    if entropy > VAGUE * largest:
        reasons.append(
            f"the median entropy of its soft labels is {entropy:.2f} of at most {largest:.2f} nats, at "
            f"loss.teacher_temperature = {temperature:g}"
        )
        cures.append(
            "Lower that temperature, or calibrate the judge (`mine calibrate`) and select again"
        )
    if behind > 0.5:
        reasons.append(
            f"the judge does not rank the positive first in {behind:.0%} of {rows:,} rows"
        )
        cures.append("Use another judge, or look at the rows (`mine inspect`)")
    if not reasons:
        return None
    return (
        f"the judge teaches little: {', and '.join(reasons)}. {'. '.join(cures)}. Or set loss.name = 'infonce', which "
        "uses the labels alone"
    )


def labels_are_hard(teacher_NK: NDArray[np.float64], temperature: float) -> str | None:
    """Returns a warning if a judge's soft labels are almost hard labels. Otherwise returns None.

    Labels count as hard if the median entropy of Q = softmax(scores / temperature) is less than 0.05 nats.

    Args:
        teacher_NK: Judge scores in [0, 1] of judged rows, the positive first.
        temperature: The temperature of the teacher. Greater than 0.

    Returns:
        The warning with the entropy and what to do; or None. Always None without rows.

    Example:
        >>> labels_are_hard(np.array([[0.9, 0.1, 0.2]]), 0.5) is None
        True
        >>> labels_are_hard(np.array([[0.9, 0.1, 0.2]]), 0.02)[:63]
        'the soft labels equal hard labels: their median entropy is 0.00'
    """
    if not len(teacher_NK):
        return None
    entropy = _median_entropy(teacher_NK, temperature)
    if entropy >= HARD:
        return None
    softer = {warmer: _median_entropy(teacher_NK, warmer) for warmer in SOFTER}
    enough = [
        f" (at {warmer:g} the entropy is {nats:.2f})"
        for warmer, nats in softer.items()
        if nats >= HARD
    ]
    return (
        f"the soft labels equal hard labels: their median entropy is {entropy:.4f} nats at loss.teacher_temperature = "
        f"{temperature:g}. Raise loss.teacher_temperature{enough[0] if enough else ''}, or use loss.name = 'infonce'"
    )


def pool_is_covered(settings: EmbedderSettings, pools: Sequence[Pool]) -> str | None:
    """Returns a warning if random or in-batch negatives meet every item of a pool many times. Otherwise returns None.

    A training draws batch_size · gradient_accumulation_steps · max_steps · num_negatives negatives. With in-batch
    negatives, the positives of other rows are drawn as well. The share of a pool in these draws is the share of its
    rows in all rows. Sets of labels are left out.

    Args:
        settings: The settings of the training.
        pools: The pools of the subsets in the training rows.

    Returns:
        A warning about the pool whose items are seen most often, with its numbers and what to do. None if every pool's
        items are seen fewer than ten times.
    """
    open_pools = [pool for pool in pools if pool.rows < LABELS * pool.items]
    of_row = settings.num_negatives + (1 if settings.loss.in_batch_weight else 0)
    rows = settings.batch_size * settings.gradient_accumulation_steps * settings.max_steps
    in_all = sum(pool.rows for pool in pools)
    drawn = {pool: rows * pool.rows / in_all * of_row for pool in open_pools}
    covered = [pool for pool in open_pools if drawn[pool] >= OFTEN * pool.items]
    if not covered:
        return None
    worst = max(covered, key=lambda pool: drawn[pool] / pool.items)
    others = (
        f" ({len(covered)} of {len(open_pools)} pools are too small)" if len(open_pools) > 1 else ""
    )
    return (
        f"the pool of {worst.subset!r} is small: {drawn[worst]:,.0f} negatives are drawn from {worst.items:,} items, "
        f"each about {drawn[worst] / worst.items:.0f} times{others}. Random negatives cover a pool of this size, so "
        "mined negatives gain little. "
        "Import more items into the corpus, or lower max_steps, batch_size or num_negatives"
    )


def _median_entropy(teacher_NK: NDArray[np.float64], temperature: float) -> float:
    return float(_distributions(torch.from_numpy(teacher_NK), temperature)[1].median())


def _distributions(scores_BK: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Returns softmax(scores / temperature) and its entropy in nats, without gradients."""
    logs = F.log_softmax(to_float32(scores_BK.detach()) / temperature, -1)
    return logs.exp(), -(logs.exp() * logs).sum(-1)
