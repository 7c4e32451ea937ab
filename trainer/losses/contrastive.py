"""What a student can learn from labels alone, and from the other rows of a batch: pure functions; no model, no rank.

Letters: B queries · U distinct candidates of a batch. Computed in float32, or float64 where that is given.
"""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from trainer.losses.distillation import to_float32, weighted_mean


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
        masked_BU: True where a column is not a negative of the row: another known positive, or another row's candidate.
            A row without a negative costs nothing.
        temperature: Divides the similarities. Greater than 0.
        weights_B: As in `losses.symmetric_kl`.

    Returns:
        A scalar ≥ 0, in nats.

    Raises:
        ValueError: A target is masked, or there is one candidate in all: the loss would be zero without a word.

    Example:
        >>> even = infonce(torch.zeros(1, 3), torch.tensor([0]), torch.zeros(1, 3, dtype=torch.bool), temperature=1)
        >>> round(even.item(), 4)  # ln 3
        1.0986

    Source:
        van den Oord et al., "Representation learning with contrastive predictive coding", arXiv 1807.03748.
    """
    if masked_BU.gather(1, target_B[:, None]).any():
        raise ValueError("infonce: a target is masked; a query's own positive must stay in its row")
    if similarities_BU.shape[1] < 2:
        raise ValueError("infonce: one candidate in all; the loss would be zero whatever the model does")
    logits_BU = (to_float32(similarities_BU) / temperature).masked_fill(masked_BU, -torch.inf)
    return weighted_mean(F.cross_entropy(logits_BU, target_B, reduction="none"), weights_B)


def in_batch_contrast(
    similarities_BU: Tensor,
    own_BU: Tensor,
    all_BU: Tensor,
    *,
    temperature: float,
    weights_B: Tensor | None = None,
) -> Tensor:
    """Mean surprise at finding a query's candidates among its own, in the student's ranking of the whole batch.

        loss = mean over b of  −w_b ln [ Σ_own e^(s_bu / t) / Σ_all e^(s_bu / t) ].

    A judge has no word on other rows' candidates, and a Q of 0 for them would make KL(P || Q) infinite. But P over the
    batch is P over own candidates times the probability of being own, so with Q = 0 for others

        KL(Q || P over the batch) = KL(Q || P over own) + this.

    Hence it stands beside the other losses as a term of its own: with `infonce` over own candidates it is, exactly, the
    usual InfoNCE over the batch; with `kl` that InfoNCE with soft labels. It never pushes a row's own candidates apart:
    that is the judge's to say.

    Args:
        similarities_BU: Cosine similarities of each query with every distinct candidate of the batch, in [-1, 1].
        own_BU: True where a column is the row's own candidate. At least one a row.
        all_BU: The same, and where it is another row's and no known positive of this one. A row without one of these
            costs nothing.
        temperature: Divides the similarities. Greater than 0.
        weights_B: As in `losses.symmetric_kl`.

    Returns:
        A scalar ≥ 0, in nats.

    Example:
        >>> own, every = torch.tensor([[True, False, False]]), torch.ones(1, 3, dtype=torch.bool)
        >>> round(in_batch_contrast(torch.zeros(1, 3), own, every, temperature=1).item(), 4)  # ln 3
        1.0986
    """
    logits_BU = to_float32(similarities_BU) / temperature
    own_B, all_B = (logits_BU.masked_fill(~kept, -torch.inf).logsumexp(1) for kept in (own_BU, all_BU))
    return weighted_mean(all_B - own_B, weights_B)
