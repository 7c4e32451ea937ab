"""From nearest items to candidates: below the positive, within a window of ranks, and nothing that is excluded.

Letters: N items · Q queries · U distinct vectors of queries · G questions · D vector width · K found.
"""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from miner.retrieval.retrievers import NO_ITEM, Best, Retriever, pool_blocks
from unijudge.formats.lazy_table import Rows
from unijudge.formats.vectors import VectorFolder, Vectors

EQUAL = 1e-6
"""Similarities closer than this are equal: float32 sums differ by less between two ways of multiplying."""
QUERIES_AT_ONCE = 1024
"""Of the second way; 8,192 items at once make 32 MB of similarities."""
MANY = 16
"""Rows of one question for which its whole pool is put in order once."""
SIMILARITIES_AT_ONCE = 1 << 24
"""Of whole pools that are put in order: 64 MB."""

Found = tuple[Rows, Vectors]
"""A query's candidates and their similarities, best first."""


@dataclass(frozen=True)
class Window:
    """Which of a query's nearest items may be its candidates."""

    k: int
    """How many are wanted."""
    range_min: int = 0
    """Nearest items that are passed over."""
    range_max: int | None = None
    """Rank beyond which none is taken; None: the whole pool."""


@dataclass(frozen=True)
class _Search:
    """The arguments of `candidates_below`."""

    vectors: VectorFolder
    queries_QD: Vectors
    pool: Rows
    ceilings_Q: npt.NDArray[np.floating]
    excluded: Sequence[Rows]
    window: Window
    stop: threading.Event | None

    def blocks(self) -> Iterator[tuple[Rows, Vectors]]:
        """The pool and its vectors."""
        return pool_blocks(self.vectors, self.pool, self.stop)


def candidates_below(
    retriever: Retriever,
    vectors: VectorFolder,
    queries_QD: Vectors,
    pool: Rows,
    ceilings_Q: npt.NDArray[np.floating],
    excluded: Sequence[Rows],
    window: Window,
    stop: threading.Event | None = None,
) -> list[Found]:
    """For each query the k most similar items that are less similar than its ceiling and not excluded.

    UniME-V2's first filter: a candidate at least as similar as the positive is a likely false negative. Where the
    nearest few are not enough, because a positive ranks low, the pool is gone through once more for those queries.

    Args:
        retriever: Finds the nearest.
        vectors: The items' vectors, for the second way.
        queries_QD: Unit vectors.
        pool: Item rows, ascending.
        ceilings_Q: Candidates lie below, by more than `EQUAL`.
        excluded: Item rows that may not be candidates, for each query, ascending; they have no rank. Queries that ask
            one question have one and the same array.
        window: How many, and between which ranks.
        stop: Ends the search early.

    Returns:
        Item rows and similarities, best first; shorter than k only where the window or the pool has no more.

    Raises:
        Stopped: `stop` was set meanwhile.
    """
    search = _Search(vectors, queries_QD, pool, ceilings_Q, excluded, window, stop)
    groups = _questions(queries_QD, excluded)
    found, unfinished = _nearest(retriever, search, groups)
    # What is left of a question that many ask is cut from one order of its pool; the others go block by block.
    left = [[*filter(unfinished.__contains__, group)] for group in groups]
    many = [group for group in left if len(group) >= MANY]
    few = sorted(query for group in left if len(group) < MANY for query in group)
    for start in range(0, len(few), QUERIES_AT_ONCE):
        some = few[start : start + QUERIES_AT_ONCE]
        found |= zip(some, _block_by_block(search, some), strict=True)
    together = max(1, SIMILARITIES_AT_ONCE // max(1, len(pool)))
    for start in range(0, len(many), together):
        found |= _in_order(search, many[start : start + together])
    return [found[query] for query in range(len(queries_QD))]


def _questions(queries_QD: Vectors, excluded: Sequence[Rows]) -> list[list[int]]:
    """Queries that are sought once: equal vectors, with the same exclusions."""
    found: dict[tuple[bytes, int], list[int]] = {}
    for query, (vector_D, out) in enumerate(zip(queries_QD, excluded, strict=True)):
        found.setdefault((vector_D.tobytes(), id(out)), []).append(query)
    return list(found.values())


def _nearest(retriever: Retriever, search: _Search, groups: list[list[int]]) -> tuple[dict[int, Found], set[int]]:
    """What the nearest few hold, and for which queries more must be looked at."""
    window, pool = search.window, search.pool
    fetch = max(1, min(len(pool), window.range_min + 2 * window.k + 8))
    firsts = [group[0] for group in groups]
    similarities_GK, rows_GK = retriever.search(np.ascontiguousarray(search.queries_QD[firsts]), pool, fetch)
    found: dict[int, Found] = {}
    unfinished: set[int] = set()
    for group, values, rows in zip(groups, similarities_GK, rows_GK, strict=True):
        missed = len(pool) > 0 and bool((rows == NO_ITEM).any())  # by an index: the pool holds as many as are sought
        inside = (rows != NO_ITEM) & ~_among(rows, search.excluded[group[0]])
        allowed = np.flatnonzero(inside)[window.range_min : window.range_max]
        at_end = window.range_max is not None and len(allowed) >= window.range_max - window.range_min
        for query in group:
            below = allowed[values[allowed] < search.ceilings_Q[query] - EQUAL][: window.k]
            found[query] = (rows[below], values[below])
            if len(below) < window.k and not at_end and (missed or fetch < len(pool)):
                unfinished.add(query)
    return found, unfinished


def _block_by_block(search: _Search, queries: Sequence[int]) -> list[Found]:
    """The same, exactly, by going through the whole pool: what is too similar counts for the rank and is not kept."""
    window, queries_QD, ceilings_Q = search.window, search.queries_QD[queries], search.ceilings_Q[queries]
    best = Best(len(queries), window.k + window.range_min)
    above_Q = np.zeros(len(queries), np.int64)
    for rows, vectors_ND in search.blocks():
        values_QN = queries_QD @ vectors_ND.T
        outs: dict[int, Rows] = {}  # rows of one question have one array, which may be long
        for place, query in enumerate(queries):
            excluded = search.excluded[query]
            if id(excluded) not in outs:
                outs[id(excluded)] = _places(rows, excluded)
            values_QN[place, outs[id(excluded)]] = -np.inf
        too_near_QN = values_QN >= (ceilings_Q - EQUAL)[:, None]
        above_Q += too_near_QN.sum(1)
        best.add(np.where(too_near_QN, -np.inf, values_QN), np.broadcast_to(rows, values_QN.shape))
    found = []
    for query, above in enumerate(above_Q.tolist()):
        first = max(0, window.range_min - above)
        last = first + window.k
        if window.range_max is not None:
            last = min(last, max(first, window.range_max - above))
        some = slice(first, last)
        real = best.similarities_QK[query, some] > -np.inf
        found.append((best.rows_QK[query, some][real], best.similarities_QK[query, some][real]))
    return found


def _in_order(search: _Search, groups: Sequence[Sequence[int]]) -> dict[int, Found]:
    """The same for rows of some questions: a question's pool is put in order, and each row cuts it at its ceiling."""
    window, firsts = search.window, [group[0] for group in groups]
    queries_GD = search.queries_QD[firsts]
    blocks = [queries_GD @ vectors_ND.T for _, vectors_ND in search.blocks()]
    found: dict[int, Found] = {}
    for group, values_N in zip(groups, np.concatenate(blocks, axis=1), strict=True):
        allowed = np.ones(len(search.pool), bool)
        allowed[_places(search.pool, search.excluded[group[0]])] = False
        rows, values = search.pool[allowed], values_N[allowed]
        order = np.lexsort((rows, -values))
        rows, values = rows[order], values[order]
        # Best first, so what is too similar stands before the place where the ceiling would.
        aboves = np.searchsorted(-values.astype(np.float64), EQUAL - search.ceilings_Q[group], side="right")
        for query, above in zip(group, aboves.tolist(), strict=True):
            first = max(above, window.range_min)
            last = first + window.k if window.range_max is None else min(first + window.k, max(first, window.range_max))
            found[query] = (rows[first:last], values[first:last])
    return found


def _among(rows: Rows, ascending: Rows) -> npt.NDArray[np.bool_]:
    """Which rows stand in an ascending array; in time that grows with the number of rows, not with that array's."""
    places = np.searchsorted(ascending, rows)
    inside = places < len(ascending)
    inside[inside] = ascending[places[inside]] == rows[inside]
    return inside


def _places(rows: Rows, wanted: Rows) -> Rows:
    """Where in ascending rows, of which there is one at least, those of another ascending array stand."""
    near = wanted[slice(*np.searchsorted(wanted, [rows[0], rows[-1] + 1]))]
    return np.searchsorted(rows, near)[_among(near, rows)]
