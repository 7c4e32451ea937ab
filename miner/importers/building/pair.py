"""The rows that the readers of all layouts yield: pairs of a query and a positive, items, and unreadable rows."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from unijudge.foreign.cells import Rejected, Side
from unijudge.shown import NAMED


class Mismatch(Rejected):
    """The row is labelled as a mismatch. Such a row is not a pair, and not an error in the file."""


@dataclass(frozen=True)
class Pair:
    """A row with a query and its positive."""

    place: str
    """The file and the number of the row, for messages. Example: `cirr/original-00000.parquet:17`."""
    subset: str
    query: Side
    positive: Side
    query_id: str | None = None
    """The id of the query. Rows with the same id are a single query with several positives."""
    more_positives: tuple[Side, ...] = ()
    negatives: tuple[Side, ...] = ()
    """The negatives. They become items, so that they can be candidates."""
    pooled: bool = True
    """Whether the negatives belong to the subset's pool; False if they were mined from all subsets."""
    candidates: tuple[Side, ...] | None = None
    """The closed list of an evaluation, including the positive."""
    scores: tuple[float, ...] | None = None
    """The published scores of the positive, then of each negative."""


@dataclass(frozen=True)
class Pooled:
    """An item that belongs to no query and only makes the pool larger."""

    place: str
    subset: str
    item: Side


@dataclass(frozen=True)
class Unread:
    """A row that its reader cannot read."""

    place: str
    subset: str
    reason: str
    is_mismatch: bool = False
    """Whether the row is labelled as a mismatch, which is not an error."""


@dataclass(frozen=True)
class Ignored:
    """Something other than a row that the reader ignores."""

    kind: str
    """The kind of the thing in the plural, such as `columns`."""
    name: str


@dataclass
class Left:
    """Ignored things of one kind."""

    count: int = 0
    names: list[str] = field(default_factory=list)
    """The names of the first few things."""

    def add(self, name: str) -> None:
        """Adds a thing by its name."""
        self.count += 1
        if len(self.names) < NAMED:
            self.names.append(name)


Made = TypeVar("Made", bound=Pair | Pooled)
Row = Pair | Pooled | Unread | Ignored
"""The types that a reader yields."""


def readable(
    make: Callable[[Any, str, str], Made], row: Any, place: str, subset: str
) -> Made | Unread:
    """Returns the result of `make` for a row, or `Unread` if `make` rejects the row."""
    try:
        return make(row, place, subset)
    except Rejected as reason:
        return Unread(place, subset, str(reason), isinstance(reason, Mismatch))
