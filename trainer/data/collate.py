"""Examples → one batch, in which every distinct content stands once, however many rows hold it.

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
    """What one forward pass needs: the distinct contents, and who is whose."""

    queries: list[Content]
    candidates: list[Content]
    """U distinct ones."""
    candidate_keys: list[bytes]
    """Content hashes, in the same order."""
    candidate_signs: list[Sign]
    """By what they are known among their like, in the same order."""
    excluded: list[Excluded]
    """Of each row, what can be no negative of it."""
    columns_BK: Tensor
    """Where each row's candidates stand among the U, the positive first."""
    says_BU: Tensor
    """True where a candidate says what a known positive of the row says, or the row's own query."""
    shows_BU: Tensor
    """True where a candidate shows the picture of the row's query."""
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
        """True where a candidate is no negative of the row: it is excluded, or not its own unless `in_batch`.

        A negative of its own that shows the query's picture stays one: a selection that was told to chose it.
        """
        others = torch.ones_like(self.says_BU).scatter_(1, self.columns_BK, value=False)
        masked = self.says_BU | (others & self.shows_BU if in_batch else others)
        return masked.scatter_(1, self.target_B[:, None], value=False)


def collate(examples: Sequence[Example]) -> Batch:
    """Puts examples together."""
    place: dict[bytes, int] = {}
    candidates: list[Content] = []
    signs: list[Sign] = []
    for example in examples:
        for key, sign, content in zip(example.candidate_keys, example.signs, example.candidates, strict=True):
            if key not in place:
                place[key] = len(candidates)
                candidates.append(content)
                signs.append(sign)
    teachers = [example.teacher for example in examples if example.teacher is not None]
    excluded = [example.excluded for example in examples]
    says_BU, shows_BU = excluded_among(excluded, signs)
    return Batch(
        queries=[example.query for example in examples],
        candidates=candidates,
        candidate_keys=list(place),
        candidate_signs=signs,
        excluded=excluded,
        columns_BK=torch.tensor([[*map(place.__getitem__, example.candidate_keys)] for example in examples]),
        says_BU=says_BU,
        shows_BU=shows_BU,
        teacher_BK=torch.tensor(teachers) if len(teachers) == len(examples) else None,
        weights_B=torch.tensor([example.weight for example in examples]),
    )


def excluded_among(excluded: Sequence[Excluded], signs: Sequence[Sign]) -> tuple[Tensor, Tensor]:
    """`says_BU` and `shows_BU` of a batch, for these candidates."""
    says, shows = [], []
    for row in excluded:
        says.append([row.says(sign) for sign in signs])
        shows.append([row.shows(sign) for sign in signs])
    return torch.tensor(says), torch.tensor(shows)
