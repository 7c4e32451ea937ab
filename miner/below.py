"""From nearest items to candidates: below the positive, within a window of ranks, and nothing that is excluded.

Letters: N items · Q queries · D vector width · K found.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from miner.retrieve import NOTHING, Best, Retriever, pool_blocks
from unijudge.entries import Rows
from unijudge.vectors import VectorFolder, Vectors

EQUAL = 1e-6
"""Similarities closer than this are equal: float32 sums differ by less between two ways of multiplying."""
QUERIES_AT_ONCE = 1024
"""Of the second way; 8,192 items at once make 32 MB of similarities."""


@dataclass(frozen=True)
class Window:
    """Which of a query's nearest items may be its candidates."""

    k: int
    """How many are wanted."""
    skip: int = 0
    """Nearest items that are passed over."""
    depth: int | None = None
    """Rank beyond which none is taken; None: the whole pool."""


def candidates_below(
    retriever: Retriever,
    vectors: VectorFolder,
    queries_QD: Vectors,
    pool: Rows,
    ceilings_Q: npt.NDArray[np.floating],
    excluded: Sequence[Rows],
    window: Window,
) -> list[tuple[Rows, Vectors]]:
    """For each query the k most similar items that are less similar than its ceiling and not excluded.

    UniME-V2's first filter: a candidate at least as similar as the positive is a likely false negative. Where the
    nearest few are not enough, because a positive ranks low, the pool is gone through once more for those queries.

    Args:
        retriever: Finds the nearest.
        vectors: The items' vectors, for the second way.
        queries_QD: Unit vectors.
        pool: Item rows, ascending.
        ceilings_Q: Candidates lie below, by more than `EQUAL`.
        excluded: Item rows that may not be candidates, for each query; they have no rank.
        window: How many, and between which ranks.

    Returns:
        Item rows and similarities, best first; shorter than k only where the window or the pool has no more.
    """
    fetch = max(1, min(len(pool), window.skip + 2 * window.k + 8))
    similarities_QK, rows_QK = retriever.search(queries_QD, pool, fetch)
    found: list[tuple[Rows, Vectors]] = []
    unfinished = []
    for query, (values, rows) in enumerate(zip(similarities_QK, rows_QK, strict=True)):
        allowed = np.flatnonzero((rows != NOTHING) & ~np.isin(rows, excluded[query]))[window.skip : window.depth]
        below = allowed[values[allowed] < ceilings_Q[query] - EQUAL][: window.k]
        found.append((rows[below], values[below]))
        at_end = window.depth is not None and len(allowed) >= window.depth - window.skip
        if len(below) < window.k and not at_end and fetch < len(pool):
            unfinished.append(query)
    for start in range(0, len(unfinished), QUERIES_AT_ONCE):
        some = unfinished[start : start + QUERIES_AT_ONCE]
        deep = _all_below(vectors, queries_QD[some], pool, ceilings_Q[some], [excluded[q] for q in some], window)
        for query, one in zip(some, deep, strict=True):
            found[query] = one
    return found


def _all_below(
    vectors: VectorFolder,
    queries_QD: Vectors,
    pool: Rows,
    ceilings_Q: npt.NDArray[np.floating],
    excluded: Sequence[Rows],
    window: Window,
) -> list[tuple[Rows, Vectors]]:
    """The same, exactly, by going through the whole pool: what is too similar counts for the rank and is not kept."""
    best = Best(len(queries_QD), window.k + window.skip)
    above_Q = np.zeros(len(queries_QD), np.int64)
    for rows, vectors_ND in pool_blocks(vectors, pool):
        values_QN = queries_QD @ vectors_ND.T
        for query, out in enumerate(excluded):
            values_QN[query, np.isin(rows, out)] = -np.inf
        too_near_QN = values_QN >= (ceilings_Q - EQUAL)[:, None]
        above_Q += too_near_QN.sum(1)
        best.add(np.where(too_near_QN, -np.inf, values_QN), np.broadcast_to(rows, values_QN.shape))
    found = []
    for query, above in enumerate(above_Q.tolist()):
        first = max(0, window.skip - above)
        last = first + window.k if window.depth is None else min(first + window.k, max(first, window.depth - above))
        some = slice(first, last)
        real = best.similarities_QK[query, some] > -np.inf
        found.append((best.rows_QK[query, some][real], best.similarities_QK[query, some][real]))
    return found
