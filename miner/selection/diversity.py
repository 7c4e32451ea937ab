"""How alike the negatives of a row are: a sample of rows, taken while they stream by, and its mean cosine."""

import random
from collections.abc import Sequence
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from unijudge.formats.corpus import Corpus
from unijudge.formats.vectors import VectorFolder

T = TypeVar("T")
SAMPLED_ROWS = 4096


class Reservoir(Generic[T]):
    """At most `SAMPLED_ROWS` of a stream, each with the same chance; the same on every run."""

    def __init__(self, seed: int):
        """Holds nothing yet."""
        self._dice = random.Random(seed)  # noqa: S311  reproducible, not secret
        self._seen = 0
        self.held: list[T] = []

    def place(self) -> int | None:
        """Where the next one of the stream is to be held, in the place of another if need be; None: nowhere."""
        self._seen += 1
        if self._seen <= SAMPLED_ROWS:
            return self._seen - 1
        place = self._dice.randrange(self._seen)
        return place if place < SAMPLED_ROWS else None

    def add(self, value: T) -> None:
        """Takes the next one, or lets it go."""
        place = self.place()
        if place is not None:
            self.held[place : place + 1] = [value]


def likeness(
    corpus: Corpus, vectors: VectorFolder, selections: Sequence[Sequence[Sequence[str]]]
) -> list[float | None]:
    """For each selection, the mean over its rows of the mean cosine among a row's distinct items.

    With n unit vectors v of sum s, the mean over the pairs is (s·s − n) / (n (n − 1)).

    Args:
        corpus: To which the items belong.
        vectors: Its embeddings; read once for all selections, and those of their items held together. Items without
            one are passed over.
        selections: Item ids of each row of each selection.

    Returns:
        In [−1, 1]; None where no row has two items.
    """
    unseen = vectors.skipped("items")
    places = []
    for rows in selections:
        seen = (np.setdiff1d(_places(corpus, items), unseen) for items in rows)
        places.append([row for row in seen if len(row) > 1])
    every = [row for rows in places for row in rows]
    if not every:
        return [None] * len(selections)
    wanted = np.unique(np.concatenate(every))
    found_ND = vectors.take("items", wanted)

    def mean(rows: Sequence[npt.NDArray[np.int64]]) -> float:
        return float(np.mean([_mean_cosine(found_ND[np.searchsorted(wanted, row)]) for row in rows]))

    return [mean(rows) if rows else None for rows in places]


def _places(corpus: Corpus, items: Sequence[str]) -> npt.NDArray[np.int64]:
    return np.array([corpus.row_of[item] for item in dict.fromkeys(items)], np.int64)


def _mean_cosine(vectors_ND: npt.NDArray[np.float32]) -> float:
    num = len(vectors_ND)
    return float((np.square(vectors_ND.sum(0)).sum() - num) / (num * (num - 1)))
