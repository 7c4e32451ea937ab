"""Pairs in Parquet, JSONL or CSV: one row is a query and one of its positives.

Columns: query_text, query_image, positive_text, positive_image (each side needs a text or an image path); optionally
subset, and query_id, which joins several rows into one query with several positives.
"""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from miner.importers.build import Pair, Side
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
    readers = {".parquet": _parquet, ".jsonl": _jsonl, ".csv": _csv}
    if path.suffix not in readers:
        raise DataError(f"{path}: expected a .parquet, .jsonl or .csv file")
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    for number, row in enumerate(_readable(path, readers[path.suffix](path)), start=1):
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


def _readable(path: Path, rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    try:
        yield from rows
    except (pa.ArrowInvalid, OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as {path.suffix[1:]} ({error})") from error


def _parquet(path: Path) -> Iterator[dict[str, Any]]:
    for batch in pq.ParquetFile(path).iter_batches():
        yield from batch.to_pylist()


def _jsonl(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(f"{path}:{number}: not JSON ({error})") from error
            if not isinstance(row, dict):
                raise DataError(f"{path}:{number}: expected an object, found {type(row).__name__}")
            yield row


def _csv(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        for number, row in enumerate(csv.DictReader(file), start=2):
            if None in row or None in row.values():
                raise DataError(f"{path}:{number}: not as many fields as the first line has names")
            yield row
