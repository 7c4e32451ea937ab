"""How much there is to learn in a judge's scores: said before a training, and watched in every step of it.

Letters: N all rows · B rows of a batch · K candidates of a row, column 0 the positive.
Q is what the judge says of them, P what the student does, both as distributions.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor

from trainer.loop import Observed
from trainer.losses import wide
from trainer.training_settings import LossSettings

ONE_HOT = 0.99
"""A distribution counts as one-hot when one candidate has more than this."""
VAGUE = 0.9
"""Of the largest entropy: a typical row above it says next to nothing."""


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


def cannot_teach(teacher_NK: NDArray[np.float64], temperature: float) -> str | None:
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
        >>> cannot_teach(np.array([[0.9, 0.1, 0.2]]), 0.02) is None
        True
        >>> cannot_teach(np.array([[0.50, 0.51, 0.49]]), 1.0)[:57]
        'the judge can hardly teach: the median entropy of its sof'
    """
    if not len(teacher_NK):
        return None
    rows, largest = len(teacher_NK), math.log(teacher_NK.shape[1])
    entropy = float(_distributions(torch.from_numpy(teacher_NK), temperature)[1].median())
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


def _distributions(scores_BK: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """softmax(scores / temperature) and its entropy in nats, without gradients."""
    logs = F.log_softmax(wide(scores_BK.detach()) / temperature, -1)
    return logs.exp(), -(logs.exp() * logs).sum(-1)
