"""Exchanges candidates between processes, so that the candidates of all processes are negatives of every row.

Letters: B rows of this process · U its distinct candidates · V the distinct candidates of all processes · D the width
of a vector.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from trainer.data.collate import Batch, excluded_among
from unijudge.alike import Sign


def gathered(batch: Batch, candidates_UD: Tensor) -> tuple[Batch, Tensor]:
    """Returns the distinct candidates of all processes, and this process's batch with columns over these candidates.

    The gradient of a vector is the sum over the losses of all processes. This sum reaches the process that embedded the
    vector. So if the processes sum their gradients, the result is the gradient of the sum of their losses; if they
    average their gradients, the result is the gradient of the mean loss. If each loss is a mean over the same number of
    rows, the mean loss equals the loss of all rows on one process.

    Every process must call this function at the same point, and must run its backward pass. A single process sends
    nothing and changes nothing.

    Args:
        batch: The batch of this process.
        candidates_UD: The embedded candidates of this process. Processes may have different numbers of candidates.

    Returns:
        The batch and the V vectors. The batch has `candidate_keys`, `candidate_signs`, `columns_BK` and masks over all
        V candidates. Its contents are still those of this process.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return batch, candidates_UD
    names: list[list[tuple[bytes, Sign]]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(names, [*zip(batch.candidate_keys, batch.candidate_signs, strict=True)])
    column_of: dict[bytes, int] = {}
    first: list[int] = []
    signs: list[Sign] = []
    for row, (key, sign) in enumerate(chain(*names)):
        if key not in column_of:
            column_of[key] = len(first)
            first.append(row)
            signs.append(sign)
    all_vectors: Tensor = _EveryRow.apply(
        candidates_UD, [len(names_of_process) for names_of_process in names]
    )
    columns_U = torch.tensor([column_of[key] for key in batch.candidate_keys])
    says_BV, shows_BV = excluded_among(batch.excluded, signs)
    among = replace(
        batch,
        candidate_keys=list(column_of),
        candidate_signs=signs,
        columns_BK=columns_U[batch.columns_BK],
        says_BU=says_BV,
        shows_BU=shows_BV,
    )
    return among, all_vectors[first]


class _EveryRow(torch.autograd.Function):
    """Concatenates the rows of all processes, in the order of the processes.

    The backward pass gives a process the gradients of its own rows, summed over all processes.
    `torch.distributed.all_gather` alone has no gradient.
    """

    @staticmethod
    def forward(ctx: Any, rows_UD: Tensor, sizes: Sequence[int]) -> Tensor:
        ctx.sizes = sizes
        padded = F.pad(rows_UD, (0, 0, 0, max(sizes) - len(rows_UD)))
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded.contiguous())
        own_rows = [part[:size] for part, size in zip(parts, sizes, strict=True)]
        return torch.cat(own_rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient_VD,) = gradients
        summed = gradient_VD.contiguous().clone()
        dist.all_reduce(summed)
        return summed.split(ctx.sizes)[dist.get_rank()], None
