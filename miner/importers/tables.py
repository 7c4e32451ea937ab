"""The rows of one file in Parquet, JSONL or CSV, in order and in bounded memory."""

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from unijudge.errors import DataError
from unijudge.tables import open_parquet

ROWS_AT_ONCE = 256
"""Of a Parquet file: its rows may hold pictures."""


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yields every row as a mapping.

    Args:
        path: Ends in .parquet, .jsonl or .csv.

    Raises:
        DataError: Another ending, no such file, or one that cannot be read as what it says.
    """
    readers = {".parquet": parquet_rows, ".jsonl": _jsonl, ".csv": _csv}
    if path.suffix not in readers:
        raise DataError(f"{path}: expected a .parquet, .jsonl or .csv file")
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        yield from readers[path.suffix](path)
    except (pa.ArrowInvalid, OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as {path.suffix[1:]} ({error})") from error


def parquet_rows(path: Path, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """Yields the rows of a Parquet file, or some columns of them."""
    with open_parquet(path) as file:
        for batch in file.iter_batches(ROWS_AT_ONCE, columns=columns):
            yield from batch.to_pylist()


def _jsonl(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                place = f"{error.msg.lower()} at column {error.pos + 1}"
                raise DataError(f"{path}:{number}: not JSON ({place}); mend that line, or take it out") from error
            except (ValueError, RecursionError) as error:  # a number of too many digits, or nested too deeply
                raise DataError(f"{path}:{number}: not JSON ({error}); mend that line, or take it out") from error
            if not isinstance(row, dict):
                raise DataError(f"{path}:{number}: expected an object, found {type(row).__name__}")
            yield row


def _csv(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        for number, row in enumerate(csv.DictReader(file), start=2):
            if None in row or None in row.values():
                raise DataError(f"{path}:{number}: not as many fields as the first line has names")
            yield row
