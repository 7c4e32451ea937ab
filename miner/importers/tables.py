"""The rows of one file in Parquet, JSONL or CSV, in order and in bounded memory.

Blank lines of JSONL are no rows. A column that stands twice in a file is refused: one of the two would be lost.
"""

import csv
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from miner.importers.json_rows import distinct_keys
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
    with reading_rows(path):
        yield from readers[path.suffix](path)


@contextmanager
def reading_rows(path: Path) -> Iterator[None]:
    """Maps what can go wrong while the rows of a file are read.

    Raises:
        DataError: The file cannot be read as what its ending says.
    """
    try:
        yield
    except (pa.ArrowInvalid, OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{path}: cannot be read as {path.suffix[1:]} ({error}); fetch the file again, or convert it to UTF-8"
        ) from error


def parquet_rows(path: Path, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """Yields the rows of a Parquet file, or some columns of them.

    Raises:
        DataError: A column stands there twice.
    """
    with open_parquet(path) as file:
        _check_distinct(path, [name for name in file.schema_arrow.names if columns is None or name in columns])
        for batch in file.iter_batches(ROWS_AT_ONCE, columns=columns):
            yield from batch.to_pylist()


def _jsonl(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line, object_pairs_hook=distinct_keys)
            except json.JSONDecodeError as error:
                place = f"{error.msg.lower()} at column {error.pos + 1}"
                raise DataError(f"{path}:{number}: not JSON ({place}); mend that line, or take it out") from error
            except (ValueError, RecursionError) as error:  # too many digits, a key twice, or nested too deeply
                raise DataError(f"{path}:{number}: not JSON ({error}); mend that line, or take it out") from error
            if not isinstance(row, dict):
                raise DataError(f"{path}:{number}: expected an object, found {type(row).__name__}")
            yield row


def _csv(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        _check_distinct(path, reader.fieldnames or ())
        for number, row in enumerate(reader, start=2):
            if None in row or None in row.values():
                raise DataError(f"{path}:{number}: not as many fields as the first line has names")
            yield row


def _check_distinct(path: Path, names: Sequence[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"{path}: column {twice[0][:40]!r} is there twice; rename or remove one of the two")
