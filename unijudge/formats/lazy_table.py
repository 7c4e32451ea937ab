"""Large tables as objects and ids: a million rows without a million objects in memory."""

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
    """Yields the texts of a column one by one, since a million Python texts would take more memory than the table."""
    for chunk in column.chunks:
        for start in range(0, len(chunk), VALUES_AT_ONCE):
            yield from chunk[start : start + VALUES_AT_ONCE].to_pylist()


class LazyTable(Sequence[E]):
    """The rows of a table as objects, which are made on access.

    A row number must not be negative, so that a −1 for a missing row never becomes the last row.
    """

    def __init__(self, table: pa.Table, make: Callable[..., E]):
        """Takes a table, and a function that makes an object of a row's columns, given as keyword arguments."""
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
            return [self[number] for number in range(*row.indices(len(self)))]
        if not 0 <= row < len(self):
            raise IndexError(row)
        return self._make(
            **{name: self.table[name][row].as_py() for name in self.table.column_names}
        )

    def __iter__(self) -> Iterator[E]:
        for batch in self.table.to_batches(max_chunksize=VALUES_AT_ONCE):
            for row in batch.to_pylist():
                yield self._make(**row)

    def part(self, rows: range) -> "LazyTable[E]":
        """Returns consecutive rows as a table that shares the memory of this table."""
        return LazyTable(self.table.slice(rows.start, len(rows)), self._make)

    @property
    def text_bytes(self) -> npt.NDArray[np.int64]:
        """Returns the bytes of each row's text; 0 without a text."""
        sizes = pc.fill_null(pc.binary_length(self.table["text"]), 0)
        return sizes.to_numpy(zero_copy_only=False).astype(np.int64)


class RowIndex:
    """An index from an id to its row, with 16 bytes per id. A hash table of Arrow takes ten times as much."""

    def __init__(self, ids: pa.ChunkedArray):
        """Builds the index. For a duplicate id, the index finds the first row; see `duplicate`."""
        self._ids = ids
        hashes = np.fromiter(map(hash, values_of(ids)), np.int64, len(ids))
        self._rows = np.argsort(hashes, kind="stable")
        self._hashes = hashes[self._rows]

    def duplicate(self) -> str | None:
        """Returns a duplicate id, or None."""
        # Equal ids have equal hashes, but different ids may collide. Both kinds are neighbours in the sorted order.
        alike = np.flatnonzero(np.diff(self._hashes) == 0)
        places = np.union1d(alike, alike + 1)[:VALUES_AT_ONCE]
        names = self._ids.take(pa.array(self._rows[places])).to_pylist()
        for name, number in Counter(names).items():
            if number > 1:
                return str(name)
        return None

    def get(self, name: str) -> int | None:
        """Returns the row of an id, or None."""
        position = int(np.searchsorted(self._hashes, hash(name)))
        while position < len(self._hashes) and self._hashes[position] == hash(name):
            row = int(self._rows[position])
            if self._ids[row].as_py() == name:
                return row
            position += 1
        return None

    def rows(self, names: pa.Array) -> Rows:
        """Returns the rows of many ids, and −1 for an unknown id."""
        found = [np.empty(0, np.int64)]
        for start in range(0, len(names), VALUES_AT_ONCE):
            some_names = names.slice(start, VALUES_AT_ONCE)
            found.append(self._some_rows(some_names))
        return np.concatenate(found)

    def _some_rows(self, names: pa.Array) -> Rows:
        wanted = names.to_pylist()
        if not len(self._hashes):
            return np.full(len(wanted), -1)
        hashes = np.fromiter(map(hash, wanted), np.int64, len(wanted))
        places = np.searchsorted(self._hashes, hashes)
        places = np.minimum(places, len(self._hashes) - 1)
        rows = self._rows[places]

        # Hashes may collide: an id that is not at the first position of its hash is looked up alone.
        ids = self._ids.take(pa.array(rows))
        found = pc.equal(ids, pa.chunked_array([names])).to_numpy()
        for position in np.flatnonzero(~found).tolist():
            row = self.get(wanted[position])
            rows[position] = -1 if row is None else row
        return rows

    def __contains__(self, name: str) -> bool:
        return self.get(name) is not None

    def __getitem__(self, name: str) -> int:
        row = self.get(name)
        if row is None:
            raise KeyError(name)
        return row
