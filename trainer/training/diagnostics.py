"""How much there is to learn in a judge's scores and in a pool: said before a training, and watched in every step.

Letters: N all rows · B rows of a batch · K candidates of a row, column 0 the positive.
Q is what the judge says of them, P what the student does, both as distributions.
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
"""A distribution counts as one-hot when one candidate has more than this."""
VAGUE = 0.9
"""Of the largest entropy: a typical row above it says next to nothing."""
HARD = 0.05
"""In nats. Below it the negatives of a typical row share less than one percent: 0.99 and 0.01 have 0.056 nats."""
SOFTER = (0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
"""Temperatures that are tried for a cure."""
OFTEN = 10
"""Negatives drawn for each item of a pool. Random draws meet every item of a pool of M after M · ln M of them, so ten
times are enough for M = 22,000. In trials of the demo's world mined negatives gained nothing over random ones where an
item was drawn 12 times (a pool of 500), and 0.022 precision@1 where it was drawn 5 times (a pool of 4,000)."""
LABELS = 8
"""Rows for each item of a pool. From here on the pool is a set of labels, which more data does not make larger; a
picture with five captions has five rows."""


def observed(settings: LossSettings, student_BK: Tensor, teacher_BK: Tensor | None) -> dict[str, Observed]:
    """What is logged of a batch: mean entropies of P and Q in nats, and the share of rows whose Q is one-hot.

    Args:
        settings: Its temperatures.
        student_BK: Cosine similarities of each query with its own candidates.
        teacher_BK: Judge scores; without them there is no Q to tell of.
    """
    seen = {"student_entropy": _distributions(student_BK, settings.student_temperature)[1].mean()}
    if teacher_BK is not None:
        teacher_q, entropies_B = _distributions(teacher_BK, settings.teacher_temperature)
        seen["teacher_entropy"] = entropies_B.mean()
        seen["teacher_one_hot"] = (teacher_q.amax(-1) > ONE_HOT).float().mean()
    return {name: Observed(value) for name, value in seen.items()}


def teacher_warning(teacher_NK: NDArray[np.float64], temperature: float) -> str | None:
    """Why a judge's scores can hardly teach, with the numbers and what to do; None where they can.

    They cannot where a typical row's soft label says nothing (the median entropy of Q = softmax(scores / temperature)
    is more than 0.9 of the largest, ln K), or where it mostly contradicts the label (in more than half of the rows the
    positive does not lead alone).

    Args:
        teacher_NK: Judge scores in [0, 1] of judged rows, the positive first.
        temperature: Of the teacher. Greater than 0.

    Returns:
        A sentence or two, or None. No rows: None.

    Example:
        >>> teacher_warning(np.array([[0.9, 0.1, 0.2]]), 0.02) is None
        True
        >>> teacher_warning(np.array([[0.50, 0.51, 0.49]]), 1.0)[:57]
        'the judge can hardly teach: the median entropy of its sof'
    """
    if not len(teacher_NK):
        return None
    rows, largest = len(teacher_NK), math.log(teacher_NK.shape[1])
    entropy = _median_entropy(teacher_NK, temperature)
    behind = float((teacher_NK[:, 1:].max(1) >= teacher_NK[:, 0]).mean())
    found, cures = [], []
    if entropy > VAGUE * largest:
        found.append(
            f"the median entropy of its soft labels is {entropy:.2f} of at most {largest:.2f} nats, at "
            f"loss.teacher_temperature = {temperature:g}"
        )
        cures.append("lower that temperature, or calibrate the judge (`mine calibrate`) and select again")
    if behind > 0.5:
        found.append(f"it does not put the positive first in {behind:.0%} of {rows:,} rows")
        cures.append("take another judge, or look at the rows (`mine inspect`)")
    if not found:
        return None
    return (
        f"the judge can hardly teach: {'; and '.join(found)}. What may help: {'; '.join(cures)}; loss.name = 'infonce' "
        "takes the labels alone"
    )


def labels_are_hard(teacher_NK: NDArray[np.float64], temperature: float) -> str | None:
    """That a judge's soft labels are hard ones, with the number and what to do; None where they are soft.

    They are hard where the median entropy of Q = softmax(scores / temperature) is less than 0.05 nats.

    Args:
        teacher_NK: Judge scores in [0, 1] of judged rows, the positive first.
        temperature: Of the teacher. Greater than 0.

    Returns:
        A sentence or two, or None. No rows: None.

    Example:
        >>> labels_are_hard(np.array([[0.9, 0.1, 0.2]]), 0.5) is None
        True
        >>> labels_are_hard(np.array([[0.9, 0.1, 0.2]]), 0.02)[:61]
        'soft labels equal hard ones here: their median entropy is 0.0'
    """
    if not len(teacher_NK):
        return None
    entropy = _median_entropy(teacher_NK, temperature)
    if entropy >= HARD:
        return None
    softer = {warmer: _median_entropy(teacher_NK, warmer) for warmer in SOFTER}
    enough = [f" (at {warmer:g} it is {found:.2f})" for warmer, found in softer.items() if found >= HARD]
    return (
        f"soft labels equal hard ones here: their median entropy is {entropy:.4f} nats at loss.teacher_temperature = "
        f"{temperature:g}. Raise loss.teacher_temperature{enough[0] if enough else ''}, or use loss.name = 'infonce'"
    )


def pool_is_covered(settings: EmbedderSettings, pools: Sequence[Pool]) -> str | None:
    """That random or in-batch negatives meet every item of a pool many times, with the numbers and what to do.

    A training draws batch_size · gradient_accumulation_steps · max_steps · num_negatives of them; with in-batch
    negatives the positives of other rows are drawn too. A pool gets the share that its rows have of all rows.
    Sets of labels are left out.

    Args:
        settings: The training.
        pools: Of the subsets of its rows.

    Returns:
        A sentence or two about the pool whose items are seen most often, or None where no item is seen ten times.
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
    others = f" ({len(covered)} of {len(open_pools)} pools are too small)" if len(open_pools) > 1 else ""
    return (
        f"the pool of {worst.subset!r} is small: {drawn[worst]:,.0f} negatives are drawn from a pool of "
        f"{worst.items:,}: each is seen about {drawn[worst] / worst.items:.0f} times{others}. Random negatives cover "
        "such a pool, so mined ones gain little over them. Import more items into the corpus, or lower steps, "
        "batch_size or negatives"
    )


def _median_entropy(teacher_NK: NDArray[np.float64], temperature: float) -> float:
    return float(_distributions(torch.from_numpy(teacher_NK), temperature)[1].median())


def _distributions(scores_BK: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """softmax(scores / temperature) and its entropy in nats, without gradients."""
    logs = F.log_softmax(to_float32(scores_BK.detach()) / temperature, -1)
    return logs.exp(), -(logs.exp() * logs).sum(-1)
