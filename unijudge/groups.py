"""Rows by their hash: which rows have one, found by halving, without a list for each."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from unijudge.formats.lazy_table import Rows

Hashes = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


class Groups:
    """Rows by their hash."""

    def __init__(self, hashes: Hashes):
        self.hashes = hashes
        self._order = np.argsort(hashes, kind="stable")
        self._sorted = hashes[self._order]

    def equal_to(self, row: int) -> Rows:
        """The rows with the hash of a row, itself among them; ascending."""
        return self.any_of(self.hashes[row : row + 1])

    def count(self, row: int) -> int:
        """How many rows have the hash of a row, itself among them."""
        value = self.hashes[row]
        return int(np.searchsorted(self._sorted, value, "right") - np.searchsorted(self._sorted, value, "left"))

    def any_of(self, values: Hashes) -> Rows:
        """The rows with any of these hashes, ascending."""
        left, right = np.searchsorted(self._sorted, values, "left"), np.searchsorted(self._sorted, values, "right")
        found: Sequence[Rows] = [self._order[start:end] for start, end in zip(left, right, strict=True)]
        return np.sort(np.concatenate([*found, np.empty(0, np.int64)]))


def among(values: Hashes, ascending: Hashes) -> Bools:
    """Which values are among others, that ascend."""
    if not len(ascending):
        return np.zeros(len(values), bool)
    places = np.minimum(np.searchsorted(ascending, values), len(ascending) - 1)
    return ascending[places] == values
