"""Measures the mean cosine among the negatives of a row, on a sample of rows that is drawn from the stream of rows."""

import random
from collections.abc import Sequence
from itertools import chain
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from unijudge.formats.corpus import Corpus
from unijudge.formats.vectors import VectorFolder

T = TypeVar("T")
SAMPLED_ROWS = 4096


class Reservoir(Generic[T]):
    """A uniform sample of at most `SAMPLED_ROWS` values of a stream. The sample is the same on every run."""

    def __init__(self, seed: int):
        """Starts with an empty sample."""
        self._dice = random.Random(seed)  # noqa: S311  reproducible, not secret
        self._seen = 0
        self.held: list[T] = []

    def place(self) -> int | None:
        """Returns the index at which the sample stores the next value of the stream, or None if it is not sampled."""
        self._seen += 1
        if self._seen <= SAMPLED_ROWS:
            return self._seen - 1
        place = self._dice.randrange(self._seen)
        return place if place < SAMPLED_ROWS else None

    def add(self, value: T) -> None:
        """Adds the next value of the stream to the sample, if the value is sampled."""
        place = self.place()
        if place is not None:
            self.held[place : place + 1] = [value]


def likeness(
    corpus: Corpus, vectors: VectorFolder, selections: Sequence[Sequence[Sequence[str]]]
) -> list[float | None]:
    """Returns the mean cosine among a row's distinct items, averaged over the rows of each selection.

    For n unit vectors with the sum s, the mean cosine over all pairs is (s·s − n) / (n (n − 1)).

    Args:
        corpus: The corpus of the items.
        vectors: The corpus' embeddings. The vectors of all selections' items are read once and held in memory. Items
            without a vector are skipped.
        selections: The item ids of each row of each selection.

    Returns:
        A number in [−1, 1] for each selection, or None if no row of a selection has two items.
    """
    # Rows of at least two items that have vectors, as item rows of the corpus.
    skipped = vectors.skipped("items")
    selected = []
    for selection in selections:
        rows = [np.setdiff1d(_item_rows(corpus, items), skipped) for items in selection]
        selected.append([row for row in rows if len(row) > 1])
    every_row = list(chain.from_iterable(selected))
    if not every_row:
        return [None] * len(selections)

    wanted = np.unique(np.concatenate(every_row))
    vectors_ND = vectors.take("items", wanted)

    def mean(rows: Sequence[npt.NDArray[np.int64]]) -> float:
        return float(
            np.mean([_mean_cosine(vectors_ND[np.searchsorted(wanted, row)]) for row in rows])
        )

    return [mean(rows) if rows else None for rows in selected]


def _item_rows(corpus: Corpus, items: Sequence[str]) -> npt.NDArray[np.int64]:
    return np.array([corpus.row_of[item] for item in dict.fromkeys(items)], np.int64)


def _mean_cosine(vectors_ND: npt.NDArray[np.float32]) -> float:
    num = len(vectors_ND)
    squared_sum = np.square(vectors_ND.sum(0)).sum()
    return float((squared_sum - num) / (num * (num - 1)))
