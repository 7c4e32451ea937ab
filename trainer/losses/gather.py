"""Several processes: the candidates of all of them as negatives of each one's rows, with gradients.

Letters: B rows of this process · U its distinct candidates · V those of all processes · D the width of a vector.
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
    """The candidates of all processes, each content once, and where this process's rows find theirs among them.

    A gradient at one of these vectors reaches the process that embedded it as the sum over the losses of all processes.
    So when processes add up their gradients, or average them, they get those of the sum of their losses, or the mean:
    where each loss is a mean over as many rows, that of all rows on one process. Every process must call this at the
    same point, and run its backward. Alone, nothing is sent and nothing changes.

    Args:
        batch: This process's.
        candidates_UD: Its embedded candidates; the processes may hold different numbers of them.

    Returns:
        The batch with `candidate_keys`, their signs, `columns_BK` and the masks over V (its contents stay this
        process's own), and the V vectors.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return batch, candidates_UD
    names: list[list[tuple[bytes, Sign]]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(names, [*zip(batch.candidate_keys, batch.candidate_signs, strict=True)])
    place: dict[bytes, int] = {}
    first: list[int] = []
    signs: list[Sign] = []
    for row, (key, sign) in enumerate(chain(*names)):
        if key not in place:
            place[key] = len(first)
            first.append(row)
            signs.append(sign)
    everybodys: Tensor = _EveryRow.apply(candidates_UD, [len(one) for one in names])
    columns_U = torch.tensor([place[key] for key in batch.candidate_keys])
    says_BV, shows_BV = excluded_among(batch.excluded, signs)
    among = replace(
        batch,
        candidate_keys=list(place),
        candidate_signs=signs,
        columns_BK=columns_U[batch.columns_BK],
        says_BU=says_BV,
        shows_BU=shows_BV,
    )
    return among, everybodys[first]


class _EveryRow(torch.autograd.Function):
    """The rows of all processes, in their order; a process's own get the sum of the gradients that all have for them.

    `torch.distributed.all_gather` itself keeps no gradient.
    """

    @staticmethod
    def forward(ctx: Any, rows_UD: Tensor, sizes: Sequence[int]) -> Tensor:
        ctx.sizes = sizes
        padded = F.pad(rows_UD, (0, 0, 0, max(sizes) - len(rows_UD)))
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded.contiguous())
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient_VD,) = gradients
        summed = gradient_VD.contiguous().clone()
        dist.all_reduce(summed)
        return summed.split(ctx.sizes)[dist.get_rank()], None
