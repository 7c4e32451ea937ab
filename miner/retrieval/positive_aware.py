"""Turns nearest items into candidates: less similar than the positive, in a window of ranks, and not excluded.

Letters: N items · Q queries · G questions · D vector width · K nearest items.
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
"""Similarities closer than this count as equal. Float32 sums of two ways of multiplying differ by less."""
QUERIES_AT_ONCE = 1024
"""Queries that are searched together block by block. With blocks of 8,192 items their similarities take 32 MB."""
MANY = 16
"""Number of rows of one question from which on the whole pool is sorted once for all of them."""
SIMILARITIES_AT_ONCE = 1 << 24
"""Similarities of whole pools that are sorted together: 64 MB."""

Found = tuple[Rows, Vectors]
"""A query's candidates and their similarities, best first."""


@dataclass(frozen=True)
class Window:
    """The ranks of nearest items that may be candidates, and the number of candidates."""

    k: int
    """Number of candidates wanted."""
    range_min: int = 0
    """Number of nearest items to skip."""
    range_max: int | None = None
    """Rank from which on items are not candidates; None: the whole pool."""


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
        """Yields the rows of the pool and their vectors, block by block."""
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
    """Finds the k most similar items of each query that are less similar than its ceiling and not excluded.

    This is UniME-V2's first filter: a candidate at least as similar as the positive is a likely false negative. If the
    nearest items are not enough because a positive ranks low, the whole pool is searched for these queries.

    Args:
        retriever: Finds the nearest items.
        vectors: The vectors of the items, for the search of the whole pool.
        queries_QD: Unit vectors.
        pool: Item rows, ascending.
        ceilings_Q: The similarity that each candidate of a query must fall below by more than `EQUAL`.
        excluded: For each query, the item rows that may not be candidates, ascending. Excluded items have no rank.
            Queries that ask the same question share the same array object.
        window: The number of candidates, and their ranks.
        stop: Ends the search early.

    Returns:
        Item rows and similarities, best first. Fewer than k only if the window or the pool has no more items.

    Raises:
        Stopped: `stop` was set during the search.
    """
    search = _Search(vectors, queries_QD, pool, ceilings_Q, excluded, window, stop)
    groups = _questions(queries_QD, excluded)
    found, unfinished = _from_nearest(retriever, search, groups)

    # For a question that many rows ask, sorting its whole pool once is faster than going through blocks.
    to_search: list[int] = []
    to_sort: list[list[int]] = []
    for group in groups:
        left = [query for query in group if query in unfinished]
        if len(left) >= MANY:
            to_sort.append(left)
        else:
            to_search += left

    to_search.sort()
    for start in range(0, len(to_search), QUERIES_AT_ONCE):
        batch = to_search[start : start + QUERIES_AT_ONCE]
        found |= zip(batch, _block_by_block(search, batch), strict=True)
    groups_at_once = max(1, SIMILARITIES_AT_ONCE // max(1, len(pool)))
    for start in range(0, len(to_sort), groups_at_once):
        found |= _from_sorted_pool(search, to_sort[start : start + groups_at_once])
    return [found[query] for query in range(len(queries_QD))]


def _questions(queries_QD: Vectors, excluded: Sequence[Rows]) -> list[list[int]]:
    """Groups the queries that are searched once, because their vectors are equal and their exclusions are the same."""
    groups: dict[tuple[bytes, int], list[int]] = {}
    for query in range(len(queries_QD)):
        # Rows of the same question share one array of exclusions, so its identity is enough.
        key = queries_QD[query].tobytes(), id(excluded[query])
        groups.setdefault(key, []).append(query)
    return list(groups.values())


def _from_nearest(
    retriever: Retriever, search: _Search, groups: list[list[int]]
) -> tuple[dict[int, Found], set[int]]:
    """Returns the candidates among the nearest items, and the queries for which the whole pool must be searched."""
    window, pool = search.window, search.pool

    # Some more than k items are fetched, because a few of them are excluded or too similar.
    fetch = max(1, min(len(pool), window.range_min + 2 * window.k + 8))
    firsts = [group[0] for group in groups]
    queries_GD = np.ascontiguousarray(search.queries_QD[firsts])
    similarities_GK, rows_GK = retriever.search(queries_GD, pool, fetch)

    found: dict[int, Found] = {}
    unfinished: set[int] = set()
    for group, similarities, rows in zip(groups, similarities_GK, rows_GK, strict=True):
        inside = (rows != NO_ITEM) & ~_among(rows, search.excluded[group[0]])
        allowed = np.flatnonzero(inside)[window.range_min : window.range_max]

        # The pool has at least `fetch` items, so a gap in the result is an item that an approximate index missed.
        has_gaps = len(pool) > 0 and bool((rows == NO_ITEM).any())
        pool_has_more = has_gaps or fetch < len(pool)
        window_is_full = (
            window.range_max is not None and len(allowed) >= window.range_max - window.range_min
        )
        for query in group:
            is_below = similarities[allowed] < search.ceilings_Q[query] - EQUAL
            below = allowed[is_below][: window.k]
            found[query] = (rows[below], similarities[below])
            if len(below) < window.k and pool_has_more and not window_is_full:
                unfinished.add(query)
    return found, unfinished


def _block_by_block(search: _Search, queries: Sequence[int]) -> list[Found]:
    """Finds candidates exactly in the whole pool. Too similar items count for the ranks, but are not kept."""
    window = search.window
    queries_QD = search.queries_QD[queries]
    limits_Q1 = (search.ceilings_Q[queries] - EQUAL)[:, None]
    best = Best(len(queries), window.k + window.range_min)
    above_Q = np.zeros(len(queries), np.int64)
    for rows, vectors_ND in search.blocks():
        similarities_QN = queries_QD @ vectors_ND.T

        # Rows of the same question share one array of exclusions, which may be long: it is looked up once.
        places_of: dict[int, Rows] = {}
        for index, query in enumerate(queries):
            excluded = search.excluded[query]
            if id(excluded) not in places_of:
                places_of[id(excluded)] = _places(rows, excluded)
            similarities_QN[index, places_of[id(excluded)]] = -np.inf

        too_similar_QN = similarities_QN >= limits_Q1
        above_Q += too_similar_QN.sum(1)
        similarities_QN = np.where(too_similar_QN, -np.inf, similarities_QN)
        best.add(similarities_QN, np.broadcast_to(rows, similarities_QN.shape))

    # Of the items below the ceiling, those in the window are kept. −inf marks the end of the pool.
    found = []
    for similarities, rows, above in zip(
        best.similarities_QK, best.rows_QK, above_Q.tolist(), strict=True
    ):
        below = _ranks_below(window, above)
        kept = slice(below.start - above, below.stop - above)
        is_item = similarities[kept] > -np.inf
        found.append((rows[kept][is_item], similarities[kept][is_item]))
    return found


def _from_sorted_pool(search: _Search, groups: Sequence[Sequence[int]]) -> dict[int, Found]:
    """Finds candidates exactly: sorts the pool once for each question, then cuts it at the ceiling of each row."""
    firsts = [group[0] for group in groups]
    queries_GD = search.queries_QD[firsts]
    blocks = [queries_GD @ vectors_ND.T for _, vectors_ND in search.blocks()]
    similarities_GN = np.concatenate(blocks, axis=1)

    found: dict[int, Found] = {}
    for group, similarities_N in zip(groups, similarities_GN, strict=True):
        excluded = _places(search.pool, search.excluded[group[0]])
        allowed = np.ones(len(search.pool), bool)
        allowed[excluded] = False
        rows = search.pool[allowed]
        similarities = similarities_N[allowed]
        order = np.lexsort((rows, -similarities))
        rows = rows[order]
        similarities = similarities[order]

        # The order is descending, so the number of too similar items is the index at which the ceiling would be sorted.
        ascending = -similarities.astype(np.float64)
        above_Q = np.searchsorted(ascending, EQUAL - search.ceilings_Q[group], side="right")
        for query, above in zip(group, above_Q.tolist(), strict=True):
            kept = _ranks_below(search.window, above)
            found[query] = (rows[kept], similarities[kept])
    return found


def _ranks_below(window: Window, above: int) -> slice:
    """Returns the ranks of a query's candidates, if the first `above` items of the pool are too similar."""
    first = max(above, window.range_min)
    last = first + window.k
    if window.range_max is not None:
        last = min(last, max(first, window.range_max))
    return slice(first, last)


def _among(rows: Rows, ascending: Rows) -> npt.NDArray[np.bool_]:
    """Returns which rows are in an ascending array. The time depends on the number of rows, not on the array's size."""
    places = np.searchsorted(ascending, rows)
    inside = places < len(ascending)
    inside[inside] = ascending[places[inside]] == rows[inside]
    return inside


def _places(rows: Rows, wanted: Rows) -> Rows:
    """Returns the indexes of the wanted rows in `rows`. Both arrays are ascending, and `rows` is not empty."""
    # Only the wanted rows within the range of `rows` are looked up.
    start, stop = np.searchsorted(wanted, [rows[0], rows[-1] + 1])
    near = wanted[start:stop]
    places = np.searchsorted(rows, near)
    return places[_among(near, rows)]
