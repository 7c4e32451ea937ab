"""Tables of a million rows as objects and ids, without a million objects in memory."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

E = TypeVar("E")
Rows = npt.NDArray[np.int64]
"""Row numbers of a table."""
VALUES_AT_ONCE = 4096


def values_of(column: pa.ChunkedArray) -> Iterator[str | None]:
    """The texts of a column, one by one: a million of them as objects would take more room than their table."""
    for chunk in column.chunks:
        for start in range(0, len(chunk), VALUES_AT_ONCE):
            yield from chunk[start : start + VALUES_AT_ONCE].to_pylist()


class LazyTable(Sequence[E]):
    """The rows of a table as objects, each made when it is asked for: a million of them stay a table.

    A row number is never negative: a −1 that stands for nothing must not become the last row.
    """

    def __init__(self, table: pa.Table, make: Callable[..., E]):
        """`make` takes a row's columns by their names."""
        self.table = table.combine_chunks()
        self._make = make

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @overload
    def __getitem__(self, row: int) -> E: ...
    @overload
    def __getitem__(self, row: slice) -> list[E]: ...
    def __getitem__(self, row: int | slice) -> E | list[E]:
        if isinstance(row, slice):
            return [self[place] for place in range(*row.indices(len(self)))]
        if not 0 <= row < len(self):
            raise IndexError(row)
        return self._make(**{name: self.table[name][row].as_py() for name in self.table.column_names})

    def __iter__(self) -> Iterator[E]:
        for batch in self.table.to_batches(max_chunksize=VALUES_AT_ONCE):
            for row in batch.to_pylist():
                yield self._make(**row)

    def part(self, rows: range) -> "LazyTable[E]":
        """Some rows after each other, as a table of their own that shares the memory of this one."""
        return LazyTable(self.table.slice(rows.start, len(rows)), self._make)

    @property
    def text_bytes(self) -> npt.NDArray[np.int64]:
        """Of each row, the bytes of its text; 0 without one."""
        sizes = pc.fill_null(pc.binary_length(self.table["text"]), 0)
        return sizes.to_numpy(zero_copy_only=False).astype(np.int64)


class RowIndex:
    """id → row, in 16 bytes an id; a hash table of Arrow takes ten times as much."""

    def __init__(self, ids: pa.ChunkedArray):
        """Of an id that stands there twice it finds the first row; see `duplicate`."""
        self._ids = ids
        hashes = np.fromiter(map(hash, values_of(ids)), np.int64, len(ids))
        self._rows = np.argsort(hashes, kind="stable")
        self._hashes = hashes[self._rows]

    def duplicate(self) -> str | None:
        """An id that stands there twice, or None."""
        # Equal ids share a hash, and different ones may: both kinds stand beside each other.
        alike = np.flatnonzero(np.diff(self._hashes) == 0)
        places = np.union1d(alike, alike + 1)[:VALUES_AT_ONCE]
        names = self._ids.take(pa.array(self._rows[places])).to_pylist()
        for name, number in Counter(names).items():
            if number > 1:
                return str(name)
        return None

    def get(self, name: str) -> int | None:
        """The row of an id, or None."""
        place = int(np.searchsorted(self._hashes, hash(name)))
        while place < len(self._hashes) and self._hashes[place] == hash(name):
            row = int(self._rows[place])
            if self._ids[row].as_py() == name:
                return row
            place += 1
        return None

    def rows(self, names: pa.Array) -> Rows:
        """The rows of many ids; −1 for an id that is not among them."""
        starts = range(0, len(names), VALUES_AT_ONCE)
        found = [self._some_rows(names.slice(start, VALUES_AT_ONCE)) for start in starts]
        return np.concatenate([np.empty(0, np.int64), *found])

    def _some_rows(self, names: pa.Array) -> Rows:
        wanted = names.to_pylist()
        if not len(self._hashes):
            return np.full(len(wanted), -1)
        hashes = np.fromiter(map(hash, wanted), np.int64, len(wanted))
        places = np.minimum(np.searchsorted(self._hashes, hashes), len(self._hashes) - 1)
        rows = self._rows[places]

        # Two ids may share a hash: what was not found at the first place is looked up alone.
        found = pc.equal(self._ids.take(pa.array(rows)), pa.chunked_array([names])).to_numpy()
        for place in np.flatnonzero(~found).tolist():
            row = self.get(wanted[place])
            rows[place] = -1 if row is None else row
        return rows

    def __contains__(self, name: str) -> bool:
        return self.get(name) is not None

    def __getitem__(self, name: str) -> int:
        row = self.get(name)
        if row is None:
            raise KeyError(name)
        return row
