"""An index from a hash to its rows, by binary search, without a list for each hash."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from unijudge.formats.lazy_table import Rows

Hashes = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


class Groups:
    """An index from a hash to its rows."""

    def __init__(self, hashes: Hashes):
        self.hashes = hashes
        self._order = np.argsort(hashes, kind="stable")
        self._sorted = hashes[self._order]

    def equal_to(self, row: int) -> Rows:
        """Returns the rows with the hash of `row`, including `row`, in ascending order."""
        return self.any_of(self.hashes[row : row + 1])

    def count(self, row: int) -> int:
        """Returns the number of rows with the hash of `row`, including `row`."""
        value = self.hashes[row]
        return int(
            np.searchsorted(self._sorted, value, "right")
            - np.searchsorted(self._sorted, value, "left")
        )

    def any_of(self, values: Hashes) -> Rows:
        """Returns the rows with any of these hashes, in ascending order."""
        left, right = (
            np.searchsorted(self._sorted, values, "left"),
            np.searchsorted(self._sorted, values, "right"),
        )
        found: Sequence[Rows] = [
            self._order[start:end] for start, end in zip(left, right, strict=True)
        ]
        return np.sort(np.concatenate([*found, np.empty(0, np.int64)]))


def among(values: Hashes, ascending: Hashes) -> Bools:
    """Returns a mask of the values that occur in `ascending`, which must be sorted."""
    if not len(ascending):
        return np.zeros(len(values), bool)
    places = np.minimum(np.searchsorted(ascending, values), len(ascending) - 1)
    return ascending[places] == values
