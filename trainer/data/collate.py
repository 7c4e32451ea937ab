"""Collates examples into a batch. A content that several rows hold is in the batch only once.

Letters: B queries · K candidates of one query, column 0 the positive · U distinct candidates of the batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trainer.data.dataset import Example
from unijudge.alike import Excluded, Sign
from unijudge.content import Content


@dataclass(frozen=True)
class Batch:
    """The input of one forward pass: the distinct contents, and the assignment of candidates to rows."""

    queries: list[Content]
    candidates: list[Content]
    """The U distinct candidates."""
    candidate_keys: list[bytes]
    """The content hash of each candidate."""
    candidate_signs: list[Sign]
    """The sign of each candidate, by which duplicates are recognised."""
    excluded: list[Excluded]
    """For each row, the contents that cannot be a negative of the row."""
    columns_BK: Tensor
    """For each row, the columns of its candidates, the positive first."""
    says_BU: Tensor
    """True where a candidate duplicates the row's query or a known positive of the row."""
    shows_BU: Tensor
    """True where a candidate shows the image of the row's query."""
    teacher_BK: Tensor | None
    """Judge scores, in [0, 1]. None if any row has no scores."""
    weights_B: Tensor
    """The weight of each row in the loss, in [0, 1]."""

    def to(self, device: torch.device) -> "Batch":
        """Returns the same batch with its tensors on a device."""
        moved = {
            name: value.to(device)
            for name, value in vars(self).items()
            if isinstance(value, Tensor)
        }
        return replace(self, **moved)

    @property
    def target_B(self) -> Tensor:
        """The column of each row's positive."""
        return self.columns_BK[:, 0]

    def masked_BU(self, *, in_batch: bool) -> Tensor:
        """Returns a mask that is True where a candidate is not a negative of the row.

        A candidate is masked if it is excluded. Without `in_batch`, the candidates of other rows are masked as well. A
        row's own negative that shows the image of the query is not masked, since the selection was configured to choose
        it.
        """
        others = torch.ones_like(self.says_BU)
        others.scatter_(1, self.columns_BK, value=False)
        if in_batch:
            others &= self.shows_BU
        masked = self.says_BU | others
        return masked.scatter_(1, self.target_B[:, None], value=False)


def collate(examples: Sequence[Example]) -> Batch:
    """Combines examples into one batch."""
    column_of: dict[bytes, int] = {}
    candidates: list[Content] = []
    signs: list[Sign] = []
    for example in examples:
        for key, sign, content in zip(
            example.candidate_keys, example.signs, example.candidates, strict=True
        ):
            if key not in column_of:
                column_of[key] = len(candidates)
                candidates.append(content)
                signs.append(sign)
    teachers = [example.teacher for example in examples if example.teacher is not None]
    excluded = [example.excluded for example in examples]
    says_BU, shows_BU = excluded_among(excluded, signs)
    return Batch(
        queries=[example.query for example in examples],
        candidates=candidates,
        candidate_keys=list(column_of),
        candidate_signs=signs,
        excluded=excluded,
        columns_BK=torch.tensor(
            [[*map(column_of.__getitem__, example.candidate_keys)] for example in examples]
        ),
        says_BU=says_BU,
        shows_BU=shows_BU,
        teacher_BK=torch.tensor(teachers) if len(teachers) == len(examples) else None,
        weights_B=torch.tensor([example.weight for example in examples]),
    )


def excluded_among(excluded: Sequence[Excluded], signs: Sequence[Sign]) -> tuple[Tensor, Tensor]:
    """Returns `says_BU` and `shows_BU` of a batch for candidates with these signs."""
    says, shows = [], []
    for row in excluded:
        says.append([row.says(sign) for sign in signs])
        shows.append([row.shows(sign) for sign in signs])
    return torch.tensor(says), torch.tensor(shows)
