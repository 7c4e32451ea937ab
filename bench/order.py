"""Measures the order of queries: the hit rate of a store of images with and without it, and its time.

    .venv/bin/python -m bench.order [--queries 20000] [--k 50]

A store keeps the images that were used last. Queries ask about items near their positive, in random order, as in a data
set that was shuffled. Items are points on a line in groups of one hundred.
"""

import argparse
import resource
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from miner.scoring.query_order import shared_order


def made_up(queries: int, items: int, k: int) -> list[npt.NDArray[np.int64]]:
    """Returns the items of each query: its positive, and k items of the positive's group and of a similar group."""
    dice = np.random.default_rng(1)
    found = []
    for positive in dice.integers(0, items, queries):
        near = positive // 100 * 100 + dice.choice(100, k * 4 // 5, replace=False)
        far = (positive // 100 + dice.integers(1, 20)) * 100 + dice.choice(100, k // 5)
        found.append(np.unique(np.concatenate([[positive], near, far]) % items))
    return found


def hit_rate(order: Iterable[int], items_Q: Sequence[npt.NDArray[np.int64]], size: int) -> float:
    """Returns the share of items that a store of `size` items has when a query needs them."""
    store: OrderedDict[int, None] = OrderedDict()
    hits = asked = 0
    for query in order:
        for item in items_Q[query].tolist():
            asked += 1
            if item in store:
                hits += 1
                store.move_to_end(item)
                continue
            store[item] = None
            if len(store) > size:
                store.popitem(last=False)
    return hits / asked


def in_windows(items_Q: Sequence[npt.NDArray[np.int64]], window: int) -> list[int]:
    """Returns the order of all queries, if each window of them is ordered alone."""
    order = []
    for start in range(0, len(items_Q), window):
        order += [start + place for place in shared_order(items_Q[start : start + window])]
    return order


def main(queries: int, items: int, k: int, stores: list[int], windows: list[int]) -> None:
    """Prints a table."""
    items_Q = made_up(queries, items, k)
    print(f"{queries:,} queries, {items:,} items, k = {k}\n")
    print(f"| window | {' | '.join(f'store of {size:,}' for size in stores)} | seconds |")
    print("|---" * (len(stores) + 2) + "|")
    for window in (0, *windows):
        begun = time.perf_counter()
        order = in_windows(items_Q, window) if window else list(range(queries))
        seconds = time.perf_counter() - begun
        rates = " | ".join(f"{hit_rate(order, items_Q, size):.1%}" for size in stores)
        print(f"| {f'{window:,}' if window else 'none'} | {rates} | {seconds:.1f} |", flush=True)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    print(f"\nlargest memory, with the pairs of all queries: {memory:.0f} MB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--queries", type=int, default=20_000)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--k", type=int, default=50)
    parser.add_argument("--stores", type=int, nargs="+", default=[500, 2000, 8000])
    parser.add_argument("--windows", type=int, nargs="+", default=[256, 1024, 4096, 16384])
    options = parser.parse_args()
    main(options.queries, options.items, options.k, options.stores, options.windows)
