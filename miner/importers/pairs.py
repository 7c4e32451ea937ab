"""Pairs in Parquet, JSONL or CSV: one row is a query and one of its positives.

Columns: query_text, query_image, positive_text, positive_image (each side needs a text or an image path); optionally
subset, and query_id, which joins several rows into one query with several positives.
"""

from collections.abc import Iterator
from pathlib import Path

from miner.importers.rows import Pair, Side
from miner.importers.tables import read_rows
from unijudge.errors import DataError

COLUMNS = {"query_text", "query_image", "positive_text", "positive_image", "subset", "query_id"}


def read_pairs(path: Path, subset: str | None = None) -> Iterator[Pair]:
    """Yields the rows of one file.

    Args:
        path: Ends in .parquet, .jsonl or .csv.
        subset: The name of rows that have none of their own; default: the file's name.

    Raises:
        DataError: Another ending, unreadable, or columns that are not known.
    """
    for number, row in enumerate(read_rows(path), start=1):
        unknown = sorted(set(row) - COLUMNS)
        if unknown:
            raise DataError(f"{path}:{number}: unknown columns {unknown}; known are {sorted(COLUMNS)}")
        for name, value in row.items():
            if value is not None and not isinstance(value, str):
                raise DataError(f"{path}:{number}: {name} is {value!r}; expected a string")
        yield Pair(
            place=f"{path.name}:{number}",
            subset=row.get("subset") or subset or path.stem,
            query=Side(row.get("query_text"), row.get("query_image")),
            positive=Side(row.get("positive_text"), row.get("positive_image")),
            query_id=row.get("query_id"),
        )
