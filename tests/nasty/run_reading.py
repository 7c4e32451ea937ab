"""Reads the rows of a file in its own process, so that a test can measure its memory.

Prints the number of rows, and the peak of memory above the start, in bytes.
"""

import resource
import sys
from pathlib import Path

from miner.importers.pairs import read_pairs


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    import pyarrow.parquet  # noqa: F401  belongs to the start

    start = peak()
    rows = sum(1 for _ in read_pairs(Path(sys.argv[1])))
    print(rows, peak() - start)
