"""The losses that need no judge: labels alone, and the other rows of a batch. Pure functions without a model or a rank.

Letters: B queries · U distinct candidates of a batch. The functions compute in float64 for float64 inputs, otherwise in
float32.
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
    """Returns the mean cross-entropy of picking each query's positive among its candidates.

        loss = mean over b of  −w_b ln [ e^(s_bt / t) / Σ_u e^(s_bu / t) ],   t the target's column, u not masked.

    Args:
        similarities_BU: Cosine similarities of each query with every distinct candidate of the batch, in [-1, 1].
        target_B: The column of each query's positive.
        masked_BU: True where a column is not a negative of the row: another known positive, or another row's candidate.
            A row without a negative adds nothing to the loss.
        temperature: The divisor of the similarities. Greater than 0.
        weights_B: As in `distillation.symmetric_kl`.

    Returns:
        A scalar ≥ 0, in nats.

    Raises:
        ValueError: A target is masked, or the batch has only one candidate, so the loss would always be zero.

    Example:
        >>> even = infonce(torch.zeros(1, 3), torch.tensor([0]), torch.zeros(1, 3, dtype=torch.bool), temperature=1)
        >>> round(even.item(), 4)  # ln 3
        1.0986

    Source:
        van den Oord et al., "Representation learning with contrastive predictive coding", arXiv 1807.03748.
    """
    if masked_BU.gather(1, target_B[:, None]).any():
        raise ValueError("infonce: a target is masked. Unmask each query's own positive")
    if similarities_BU.shape[1] < 2:
        raise ValueError(
            "infonce: with one candidate the loss is always zero. Give at least two candidates"
        )
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
    """Returns the mean negative log-probability of a query's own candidates in the student's ranking of the batch.

        loss = mean over b of  −w_b ln [ Σ_own e^(s_bu / t) / Σ_all e^(s_bu / t) ].

    The judge did not score the candidates of other rows, and a Q of 0 for these candidates would make KL(P || Q)
    infinite. For own candidates, P over the batch is P over the own candidates times the probability of the own
    candidates. So with Q = 0 for the candidates of other rows

        KL(Q || P over the batch) = KL(Q || P over own) + this loss.

    Hence this loss is a separate term next to the other losses. Added to `infonce` over own candidates, the sum is
    exactly the usual InfoNCE over the batch. Added to `kl`, the sum is InfoNCE with soft labels. The term never
    separates a row's own candidates from each other, since their order is the judge's decision.

    Args:
        similarities_BU: Cosine similarities of each query with every distinct candidate of the batch, in [-1, 1].
        own_BU: True where a column is the row's own candidate. Each row has at least one own candidate.
        all_BU: True for own candidates, and for candidates of other rows that are no known positive of this row. A row
            without a candidate of another row adds nothing to the loss.
        temperature: The divisor of the similarities. Greater than 0.
        weights_B: As in `distillation.symmetric_kl`.

    Returns:
        A scalar ≥ 0, in nats.

    Example:
        >>> own, every = torch.tensor([[True, False, False]]), torch.ones(1, 3, dtype=torch.bool)
        >>> round(in_batch_contrast(torch.zeros(1, 3), own, every, temperature=1).item(), 4)  # ln 3
        1.0986
    """
    logits_BU = to_float32(similarities_BU) / temperature
    own_B, all_B = (
        logits_BU.masked_fill(~kept, -torch.inf).logsumexp(1) for kept in (own_BU, all_BU)
    )
    return weighted_mean(all_B - own_B, weights_B)
