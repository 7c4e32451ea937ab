"""Imports made-up rows in its own process, so that a test can measure its memory.

Prints the peak in bytes after a quarter of the rows, and at the end.
"""

import resource
import sys
from pathlib import Path

from miner.importers.building.build import build
from miner.importers.building.pair import Pair
from unijudge.foreign.cells import Side

WORDS = "as long as a caption of the news " * 8


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def rows(number):
    """As in MMEB, every row has its own question, half of the answers repeat, and one row in a hundred is invalid."""
    for row in range(number):
        if row == number // 4:
            print(peak())
        answer = (
            ""
            if row % 100 == 7
            else f"answer {row % 1000}"
            if row % 2
            else f"answer {row} that is given once"
        )
        yield Pair(
            f"made-up:{row}",
            f"subset {row % 20}",
            Side(f"question {row}? {WORDS}", None),
            Side(answer, None),
        )


if __name__ == "__main__":
    number, folder = int(sys.argv[1]), Path(sys.argv[2])
    made = build(
        rows(number), images=folder, out=folder / "corpus", source="made-up", max_rejects=0.02
    )
    assert (made.queries, made.items, made.rejects) == (
        number * 99 // 100,
        number // 2 + 490,
        number // 100,
    )
    print(peak())
