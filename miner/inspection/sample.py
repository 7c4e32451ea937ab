"""Samples the rows of a page from a stream. The sample prefers rows of interest and is the same on every run. Pure.

Every row belongs to one file: the first view that applies to the row, rare views first, or `UNREMARKABLE`. All files
get the same number of rows. If a file has fewer rows than that, the other files share the rest.
"""

import hashlib
import heapq
from collections import Counter
from collections.abc import Sequence
from typing import Generic, TypeVar

from miner.inspection.explain import View

T = TypeVar("T")

UNREMARKABLE = "nothing to remark"
ORDER: tuple[View, ...] = (
    "errors",
    "left out",
    "suspect positives",
    "under-filled",
    "ties",
    "suspected false negatives",
)
FILES: tuple[str, ...] = (*ORDER, UNREMARKABLE)


class Sample(Generic[T]):
    """A sample of at most `size` rows of a stream. Rows outside the sample are not held in memory."""

    def __init__(self, size: int, seed: int, files: Sequence[str] = FILES):
        """Starts with an empty sample."""
        self._size = size
        self._seed = seed
        self._held: dict[str, list[tuple[int, int, T]]] = {file: [] for file in files}
        """File → heap of (negative rank, index in the stream, row). The largest rank is removed first."""
        self.read: Counter[str] = Counter()
        """File → number of rows in the stream."""

    def add(self, name: str, views: list[View], row: T) -> None:
        """Adds a row, and removes another row if the sample is full.

        Args:
            name: The name of the row. Its hash with the seed is the random rank of the row.
            views: The views that apply to the row.
            row: The row to add.
        """
        file = next((view for view in ORDER if view in views), UNREMARKABLE)
        self.put(name, file, row)

    def put(self, name: str, file: str, row: T) -> None:
        """Adds a row to a given file, and removes another row if the sample is full."""
        seeded = f"{self._seed}/{name}".encode()
        digest = hashlib.blake2b(seeded, digest_size=8).digest()
        rank = int.from_bytes(digest)
        index = self.read.total()
        heapq.heappush(self._held[file], (-rank, index, row))
        self.read[file] += 1

        held = sum(len(heap) for heap in self._held.values())
        if held > self._size:
            largest = max(self._held.values(), key=len)
            heapq.heappop(largest)

    @property
    def shown(self) -> Counter[str]:
        """File → number of rows in the sample."""
        return Counter({file: len(held) for file, held in self._held.items() if held})

    def rows(self) -> list[T]:
        """Returns the sampled rows in the order of the stream."""
        held = [entry for entries in self._held.values() for entry in entries]
        return [row for _, _, row in sorted(held, key=lambda entry: entry[1])]

    def shuffled(self) -> list[T]:
        """Returns the sampled rows in random order, so that the first rows are a random sample too."""
        held = [entry for entries in self._held.values() for entry in entries]
        return [row for _, _, row in sorted(held, key=lambda entry: entry[:2])]
