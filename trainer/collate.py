"""Examples → one batch, in which every distinct content stands once, however many rows hold it.

Letters: B queries · K candidates of one query, column 0 the positive · U distinct candidates of the batch.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trainer.examples import Example
from unijudge.corpus import Content


@dataclass(frozen=True)
class Batch:
    """What one forward pass needs: the distinct contents, and who is whose."""

    queries: list[Content]
    candidates: list[Content]
    """U distinct ones."""
    candidate_keys: list[bytes]
    """Content hashes, in the same order."""
    positive_keys: list[frozenset[bytes]]
    """Content hashes of every known positive, of each row."""
    columns_BK: Tensor
    """Where each row's candidates stand among the U, the positive first."""
    known_BU: Tensor
    """True where a candidate is a known positive of the row."""
    teacher_BK: Tensor | None
    """Judge scores, in [0, 1]; None when any row has none."""
    weights_B: Tensor
    """Of the rows in the loss, 0 … 1."""

    def to(self, device: torch.device) -> "Batch":
        """The same with its tensors there."""
        moved = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **moved)

    @property
    def target_B(self) -> Tensor:
        """The column of each row's positive."""
        return self.columns_BK[:, 0]

    def masked_BU(self, *, in_batch: bool) -> Tensor:
        """True where a candidate is no negative of the row: a known positive, or not its own unless `in_batch`."""
        masked = self.known_BU.clone()
        if not in_batch:
            own = torch.zeros_like(masked).scatter_(1, self.columns_BK, value=True)
            masked |= ~own
        return masked.scatter_(1, self.target_B[:, None], value=False)


def collate(examples: Sequence[Example]) -> Batch:
    """Puts examples together."""
    place: dict[bytes, int] = {}
    candidates: list[Content] = []
    for example in examples:
        for key, content in zip(example.candidate_keys, example.candidates, strict=True):
            if key not in place:
                place[key] = len(candidates)
                candidates.append(content)
    teachers = [example.teacher for example in examples if example.teacher is not None]
    return Batch(
        queries=[example.query for example in examples],
        candidates=candidates,
        candidate_keys=list(place),
        positive_keys=[example.positive_keys for example in examples],
        columns_BK=torch.tensor([[place[key] for key in example.candidate_keys] for example in examples]),
        known_BU=known([example.positive_keys for example in examples], place),
        teacher_BK=torch.tensor(teachers) if len(teachers) == len(examples) else None,
        weights_B=torch.tensor([example.weight for example in examples]),
    )


def known(positive_keys: Sequence[frozenset[bytes]], candidate_keys: Iterable[bytes]) -> Tensor:
    """True where a candidate is a known positive of the row."""
    keys = list(candidate_keys)
    return torch.tensor([[key in positives for key in keys] for positives in positive_keys])
