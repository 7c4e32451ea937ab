"""The most similar items of a pool for each query. Exact, on a CPU: FAISS' flat index, and numpy as its specification.

Letters: N items · Q queries · D vector width.
"""

from collections.abc import Collection, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]


DEEP = 8192
"""Beyond so many fetched, the next fetch is the whole pool: a positive that ranks this low may stand anywhere."""
BLOCK_ENTRIES = 2**24
"""Fetched entries at once, which bounds memory to a few hundred megabytes."""


class Retriever(Protocol):
    """The seam: nearest items by inner product."""

    size: int

    def search(self, queries_QD: Vectors, k: int) -> tuple[Vectors, Rows]:
        """The k most similar rows of each query, best first: similarities and row numbers, both (Q, k)."""
        ...


class ExactRetriever:
    """The specification: one matrix product; ties by row number."""

    def __init__(self, items_ND: Vectors):
        self._items_ND = items_ND
        self.size = len(items_ND)

    def search(self, queries_QD: Vectors, k: int) -> tuple[Vectors, Rows]:
        """See `Retriever.search`."""
        similarities_QN = queries_QD @ self._items_ND.T
        rows = np.argsort(-similarities_QN, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(similarities_QN, rows, axis=1), rows


class FaissRetriever:
    """The same through faiss.IndexFlatIP."""

    def __init__(self, items_ND: Vectors):
        import faiss

        self._index = faiss.IndexFlatIP(items_ND.shape[1])
        self._index.add(np.ascontiguousarray(items_ND))
        self.size = len(items_ND)

    def search(self, queries_QD: Vectors, k: int) -> tuple[Vectors, Rows]:
        """See `Retriever.search`."""
        similarities, rows = self._index.search(np.ascontiguousarray(queries_QD), k)
        return similarities, rows


def candidates_below(
    retriever: Retriever,
    queries_QD: Vectors,
    ceilings_Q: npt.NDArray[np.floating],
    excluded: Sequence[Collection[int]],
    k: int,
) -> list[list[tuple[int, float]]]:
    """For each query the k most similar items that are less similar than its ceiling and not excluded.

    UniME-V2's first filter: a candidate at least as similar as the positive is a likely false negative. What is fetched
    doubles until k survive or the pool ends, so a query whose positive ranks low gets its k as well.

    Args:
        retriever: The pool.
        queries_QD: Unit vectors.
        ceilings_Q: Similarity of each query's best positive; survivors lie strictly below.
        excluded: Rows that may not be candidates, for each query: its positives.
        k: How many to return, at most.

    Returns:
        (row, similarity) lists, best first; shorter than k only where the pool has no more.

    Example:
        >>> pool = ExactRetriever(np.array([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8]], np.float32))
        >>> query = np.array([[1.0, 0.0]], np.float32)
        >>> [row for row, _ in candidates_below(pool, query, np.array([0.9]), [{2}], k=5)[0]]
        [1]
    """
    found: list[list[tuple[int, float]]] = [[] for _ in queries_QD]
    pending = np.arange(len(queries_QD))
    fetch = min(2 * k, retriever.size)
    while len(pending):
        unfinished = []
        for block in np.array_split(pending, -(-len(pending) * fetch // BLOCK_ENTRIES)):
            similarities, rows = retriever.search(queries_QD[block], fetch)
            for query, values, near in zip(block.tolist(), similarities, rows, strict=True):
                below = np.flatnonzero((values < ceilings_Q[query]) & ~np.isin(near, list(excluded[query])))
                best = below[np.lexsort((near[below], -values[below]))][:k]
                found[query] = list(zip(near[best].tolist(), values[best].tolist(), strict=True))
                if len(below) < k and fetch < retriever.size:
                    unfinished.append(query)
        pending = np.array(unfinished, np.int64)
        fetch = min(2 * fetch if fetch < DEEP else retriever.size, retriever.size)
    return found
