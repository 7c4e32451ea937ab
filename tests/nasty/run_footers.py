"""Reads a Parquet file with each byte of its footer changed, one after the other.

Prints how many files were read or refused.
"""

import sys
from pathlib import Path

from miner.importers.pairs import read_pairs
from unijudge.errors import DataError

CHANGES = (0x01, 0x10, 0xFF)


def main(path: Path) -> None:
    data = path.read_bytes()
    length = int.from_bytes(data[-8:-4], "little")
    spoiled = path.with_name("spoiled.parquet")
    read = refused = 0
    for place in range(len(data) - 8 - length, len(data) - 8):
        for change in CHANGES:
            changed = bytearray(data)
            changed[place] ^= change
            spoiled.write_bytes(changed)
            try:
                list(read_pairs(spoiled))
                read += 1
            except DataError:
                refused += 1
    print(read, refused)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
