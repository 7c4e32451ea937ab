"""One row of a foreign layout, as its reader hands it on: a query, its positive, and whatever else it brought."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from unijudge.foreign.cells import Rejected, Side
from unijudge.shown import NAMED


class Mismatch(Rejected):
    """This row says that its two sides do not match: it is no pair, and no fault of the file."""


@dataclass(frozen=True)
class Pair:
    """One row of a foreign layout."""

    place: str
    """Where it stands, as in `cirr/original-00000.parquet:17`: for messages."""
    subset: str
    query: Side
    positive: Side
    query_id: str | None = None
    """Rows that share it are one query with several positives."""
    more_positives: tuple[Side, ...] = ()
    negatives: tuple[Side, ...] = ()
    """Become items, so that they can be candidates."""
    pooled: bool = True
    """Whether the negatives belong to the subset's pool; not so where they were mined from everywhere."""
    candidates: tuple[Side, ...] | None = None
    """The closed list of an evaluation, with the positive."""
    scores: tuple[float, ...] | None = None
    """Published: of the positive, then of each negative; probabilities."""


@dataclass(frozen=True)
class Pooled:
    """An item that belongs to no query: it makes the pool larger."""

    place: str
    subset: str
    item: Side


@dataclass(frozen=True)
class Unread:
    """A row that its reader could make nothing of."""

    place: str
    subset: str
    reason: str
    is_mismatch: bool = False
    """Whether its two sides are labelled not to match, which is no fault."""


@dataclass(frozen=True)
class Ignored:
    """Something that is no row, and that the reader leaves out."""

    kind: str
    """In the plural, as in `columns`."""
    name: str


@dataclass
class Left:
    """Things of one kind that were left out."""

    count: int = 0
    names: list[str] = field(default_factory=list)
    """The first few."""

    def add(self, name: str) -> None:
        """Counts one more."""
        self.count += 1
        if len(self.names) < NAMED:
            self.names.append(name)


Made = TypeVar("Made", bound=Pair | Pooled)
Row = Pair | Pooled | Unread | Ignored
"""What a reader yields."""


def readable(make: Callable[[Any, str, str], Made], row: Any, place: str, subset: str) -> Made | Unread:
    """What `make` makes of a row, or why it cannot."""
    try:
        return make(row, place, subset)
    except Rejected as reason:
        return Unread(place, subset, str(reason), isinstance(reason, Mismatch))
