"""Which rows a page shows: a sample of a stream, the same on every run, that prefers rows of interest. Pure.

Every row is filed under the first view that applies to it, rare ones first, or under `UNREMARKABLE`. All files get the
same number of places; where one has fewer rows than places, the others share what is left.
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
    """At most `size` rows of a stream; never holds more, but for the newest."""

    def __init__(self, size: int, seed: int, files: Sequence[str] = FILES):
        """Holds nothing yet."""
        self._size = size
        self._seed = seed
        self._held: dict[str, list[tuple[int, int, T]]] = {file: [] for file in files}
        self.read: Counter[str] = Counter()
        """File → rows of it that came by."""

    def add(self, name: str, views: list[View], row: T) -> None:
        """Takes a row, and lets another one go where there are too many.

        Args:
            name: By which its luck is drawn, with the seed.
            views: Those that apply to it.
            row: What to hold.
        """
        self.put(name, next((view for view in ORDER if view in views), UNREMARKABLE), row)

    def put(self, name: str, file: str, row: T) -> None:
        """The same, for a row whose file is known."""
        luck = int.from_bytes(hashlib.blake2b(f"{self._seed}/{name}".encode(), digest_size=8).digest())
        heapq.heappush(self._held[file], (-luck, self.read.total(), row))
        self.read[file] += 1
        if sum(map(len, self._held.values())) > self._size:
            heapq.heappop(max(self._held.values(), key=len))  # of the largest file, the least lucky

    @property
    def shown(self) -> Counter[str]:
        """File → rows of it that are held."""
        return Counter({file: len(held) for file, held in self._held.items() if held})

    def rows(self) -> list[T]:
        """What is held, in the order in which it came."""
        held = [entry for entries in self._held.values() for entry in entries]
        return [row for _, _, row in sorted(held, key=lambda entry: entry[1])]

    def shuffled(self) -> list[T]:
        """What is held, by luck: whoever stops halfway has seen a sample too."""
        held = [entry for entries in self._held.values() for entry in entries]
        return [row for _, _, row in sorted(held, key=lambda entry: entry[:2])]
