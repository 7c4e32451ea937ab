"""Orders queries so that neighbours share candidates, and stores of images and features find more of them.

The order is deterministic. Memory grows with the queries that are ordered together, not with the corpus.

Letters: Q queries · N pairs.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

RECENT = 16
"""Number of placed queries with which the next query is compared. Older items may have left a small store."""


def shared_order(items_Q: Sequence[npt.NDArray[np.int64]]) -> list[int]:
    """Returns an order of queries in which each query shares as many items as possible with the queries before it.

    The first query comes first. The next query is the one with the most items in common with the last `RECENT` queries,
    counted with each of them. Among equals, the first of the given order is next.

    Args:
        items_Q: The items of each query.

    Returns:
        The indexes of the queries, each once.

    Example:
        >>> a, b = np.array([1, 2, 3]), np.array([7, 8, 9])
        >>> shared_order([a, b, a + 1, b + 1])
        [0, 2, 1, 3]
    """
    lengths_Q = np.array([len(items) for items in items_Q], np.int64)
    items_N = np.concatenate([np.empty(0, np.int64), *items_Q])
    queries_N = np.repeat(np.arange(len(items_Q)), lengths_Q)

    # The queries of each item, as slices of one array that is sorted by item.
    by_item_N = np.argsort(items_N, kind="stable")
    holders_N = queries_N[by_item_N]
    _, starts, sizes = np.unique(items_N[by_item_N], return_index=True, return_counts=True)
    number_of_N = np.unique(items_N, return_inverse=True)[1]
    ends_Q = np.cumsum(lengths_Q)

    def touched(query: int) -> npt.NDArray[np.int64]:
        """Returns the queries that share an item with this query, once for each shared item."""
        numbers = number_of_N[ends_Q[query] - lengths_Q[query] : ends_Q[query]]
        counts = sizes[numbers]
        offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return holders_N[np.repeat(starts[numbers], counts) + offsets]

    shared_Q = np.zeros(len(items_Q), np.int64)
    order: list[int] = []
    recent: list[npt.NDArray[np.int64]] = []
    for _ in range(len(items_Q)):
        query = int(shared_Q.argmax())
        order.append(query)
        shared_Q[query] = np.iinfo(np.int64).min // 2  # placed: never the largest again

        recent.append(touched(query))
        np.add.at(shared_Q, recent[-1], 1)
        if len(recent) > RECENT:
            np.subtract.at(shared_Q, recent.pop(0), 1)
    return order
