"""The rows of Parquet, Arrow, JSON, JSON lines, CSV and TSV files, in order and in bounded memory.

Blank lines are skipped. A file with a duplicate column is refused, because a column would be lost. Unknown columns are
skipped, and named in a single warning.
"""

import csv
import glob
import itertools
import json
import logging
import os.path
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from unijudge.errors import DataError
from unijudge.foreign.cells import Unreadable
from unijudge.foreign.columns import Columns, Numbered, check_distinct
from unijudge.foreign.csv_rows import csv_rows, tsv_rows
from unijudge.foreign.json_rows import LONGEST_ROW, array_rows, distinct_keys
from unijudge.formats.tables import open_parquet
from unijudge.shown import shown
from unijudge.storage.access_errors import in_one_line
from unijudge.storage.listing import all_files, matching
from unijudge.storage.locations import is_local
from unijudge.storage.stores import exists, is_file, is_folder
from unijudge.storage.texts import (
    COMPRESSED,
    HEAD_BYTES,
    NO_UTF_8,
    TORN,
    check_no_pointer,
    open_text,
)

ROWS_AT_ONCE = 16
"""The most rows of a Parquet file in one batch, since a row may hold a picture of some megabytes."""
BYTES_AT_ONCE = 2**23
"""The most bytes of a Parquet file in one batch, estimated from the average size of a row."""
NO_ROWS = frozenset(
    {
        "config.json",
        "dataset_dict.json",
        "dataset_info.json",
        "dataset_infos.json",
        "dummy_data.zip",
        "state.json",
    }
)
"""Files without rows that the library `datasets` writes beside its data."""
BINARY = frozenset({".parquet", ".arrow", ".feather"})
ARROW_FILE = b"ARROW1"
"""The first bytes of an Arrow file. An Arrow stream begins with other bytes."""
LARGE_PAGE = 2**27
"""Bytes of a page above which the reader logs a warning about memory."""
ARROW_ROWS_IN_PAGE = 1024
"""Rows after which Arrow, as a writer, checks the size of a page."""
logger = logging.getLogger(__name__)


def files_of(places: Sequence[Path]) -> list[Path]:
    """Returns the table files of some paths. A path is a file, a folder with such files, or a shell pattern.

    Raises:
        DataError: A path has no table files.
    """
    return [path for place in places for path in _files(place)]


def _files(place: Path) -> list[Path]:
    if is_folder(place):
        there = all_files(place, *READERS, *COMPRESSED)
        found = [path for path in there if ending_of(path) in READERS and path.name not in NO_ROWS]
    elif exists(place) or not glob.has_magic(str(place)):
        return [place]
    else:
        found = [path for path in _named(place) if is_file(path)]
    if not found:
        raise DataError(f"{place}: no table file is there. Expected {', '.join(READERS)}")
    return sorted(found)


def _named(place: Path) -> list[Path]:
    """Returns the paths of a shell pattern. In a store, only the last part may be a pattern."""
    if not is_local(place):
        return matching(place.parent, place.name)
    return matching(Path(place.anchor), str(place.relative_to(place.anchor)))


def name_of(path: Path) -> str:
    """Returns a file's name without its suffixes, including the suffix of a compressed file."""
    return Path(path.stem).stem if path.suffix.lower() in COMPRESSED else path.stem


def shared_folder(files: Sequence[Path]) -> str:
    """Returns the deepest folder that contains all files, directly or in subfolders."""
    folders = [str(path)[: -len(path.name)] for path in files]
    return os.path.commonprefix(folders).rpartition("/")[0]  # noqa: RUF071  the paths may be URLs


def read_rows(path: Path, columns: Columns | None = None) -> Numbered:
    """Yields every row of a file as a mapping.

    Args:
        path: A file whose suffix is .parquet, .jsonl, .json, .ndjson, .csv, .tsv or .arrow. A compressed text file has
            one more suffix.
        columns: The known columns, which are read. With None, all columns are read.

    Raises:
        DataError: The suffix is unknown, the file does not exist, or its content does not match its suffix.
    """
    kind = ending_of(path)
    if kind not in READERS:
        raise DataError(
            f"{path}: expected a .parquet, .jsonl, .json, .csv, .tsv or .arrow file. Unpack or convert it"
        )
    if not is_file(path):
        raise DataError(f"{path}: no such file. Check the path")
    with reading_rows(path):
        yield from READERS[kind](path, columns)


def ending_of(path: Path) -> str:
    """Returns the suffix that tells a file's format, in lower case."""
    return (Path(path.stem) if path.suffix.lower() in COMPRESSED else path).suffix.lower()


@contextmanager
def reading_rows(path: Path) -> Iterator[None]:
    """Maps every error during the reading of rows.

    Raises:
        DataError: The content of the file does not match its suffix.
    """
    try:
        yield
    except DataError:
        raise
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 ({in_one_line(error)}). {NO_UTF_8}") from error
    except (pa.ArrowException, *TORN, csv.Error) as error:
        raise DataError(
            f"{path}: cannot be read as {ending_of(path)[1:]} ({in_one_line(error)}). Download the file again"
        ) from error


def parquet_rows(path: Path, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """Yields the rows of a Parquet file, with all or some columns. A cell that cannot be read becomes `Unreadable`.

    Raises:
        DataError: The file has a duplicate column.
    """
    with open_parquet(path, piecewise=True) as file:
        names = [name for name in file.schema_arrow.names if columns is None or name in columns]
        check_distinct(path, names)
        _warn_of_large_pages(path, file.metadata)
        for group in range(file.num_row_groups):
            rows = _rows_at_once(file.metadata.row_group(group))
            for batch in file.iter_batches(rows, row_groups=[group], columns=names):
                yield from _values(batch)


def _warn_of_large_pages(path: Path, metadata: Any) -> None:
    """Logs a warning about memory for large pages: Arrow reads a whole page, and holds it twice."""
    if not metadata.created_by.startswith("parquet-cpp"):  # other writers end a page at a megabyte
        return
    largest = max(
        (_page_of(metadata.row_group(number)) for number in range(metadata.num_row_groups)),
        default=0,
    )
    if largest > LARGE_PAGE:
        logger.warning(
            "%s: its pages have up to about %s MB, and reading takes twice as much memory. If that is too much, write "
            "the file again with fewer rows in a row group (row_group_size of pyarrow and pandas)",
            path, f"{largest // 10**6:,}",
        )  # fmt: skip


def _page_of(group: Any) -> int:
    """Estimates the bytes of a row group's largest page, if Arrow wrote the file. All columns are counted as one.

    The sizes of single columns must not be read, because Arrow (26) then kills the process if the footer is damaged.
    """
    return int(group.total_byte_size * min(1, ARROW_ROWS_IN_PAGE / max(group.num_rows, 1)))


def _rows_at_once(group: Any) -> int:
    average = group.total_byte_size // max(group.num_rows, 1)
    return max(1, min(ROWS_AT_ONCE, BYTES_AT_ONCE // max(average, 1)))


def _values(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    """Yields the rows of a batch one by one, so that only one row is copied at a time."""
    columns = list(zip(batch.schema.names, batch.columns, strict=True))
    for row in range(batch.num_rows):
        yield {name: _value(name, column, row) for name, column in columns}


def _value(name: str, column: pa.Array, row: int) -> Any:
    try:
        return column[row].as_py()
    except UnicodeDecodeError:
        return Unreadable(f"column {shown(name)}: not UTF-8")
    except Exception as error:  # noqa: BLE001  a date that Python cannot represent, or a type that Arrow cannot convert
        return Unreadable(f"column {shown(name)}: {in_one_line(error)}")


def _parquet(path: Path, columns: Columns | None) -> Numbered:
    with open_parquet(path) as file:
        names = file.schema_arrow.names
    known = names if columns is None else columns.known_of(path, names)
    yield from enumerate(parquet_rows(path, known), start=1)


def _arrow(path: Path, columns: Columns | None) -> Numbered:
    """Reads an Arrow stream, as the library `datasets` writes, or an Arrow file (Feather)."""
    with path.open("rb") as raw:
        head = raw.read(HEAD_BYTES)
        check_no_pointer(path, head)
        raw.seek(0)
        read = pa.ipc.open_file if head.startswith(ARROW_FILE) else pa.ipc.open_stream
        with (
            pa.memory_map(str(path)) if is_local(path) else pa.PythonFile(raw, "r") as file,
            read(file) as reader,
        ):
            names = reader.schema.names
            if columns is not None:
                names = columns.known_of(path, names)
            check_distinct(path, names)
            count = itertools.count(1)
            for batch in _batches(reader):
                yield from zip(count, _values(batch.select(names)), strict=False)


def _batches(reader: Any) -> Iterator[pa.RecordBatch]:
    """Returns the batches of an Arrow file, or of a stream, which can be read once."""
    if hasattr(reader, "num_record_batches"):
        return (reader.get_batch(number) for number in range(reader.num_record_batches))
    return iter(reader)


def _json(path: Path, columns: Columns | None) -> Numbered:
    """Reads an array of objects, or one object per line. The first character decides."""
    with open_text(path) as file:
        start = file.read(1)
        while start.isspace():
            start = file.read(1)
    if start == "[":
        for number, row in enumerate(array_rows(path), start=1):
            yield number, _object(path, number, row, columns)
        return
    with open_text(path) as file:
        number = 0
        while line := file.readline(LONGEST_ROW + 1):
            number += 1
            # Concatenated files keep the byte-order mark of each file.
            line = line.removeprefix("\ufeff")
            if number == 1 and line.strip() == "{":
                raise DataError(
                    f"{path}: is one object over several lines, not rows. Write an array, or one object per line"
                )
            if line.strip():
                yield number, _object(path, number, _parsed(path, number, line), columns)


def _parsed(path: Path, number: int, line: str) -> Any:
    if len(line) > LONGEST_ROW:
        raise DataError(
            f"{path}:{number}: more than {LONGEST_ROW:,} characters. Put each row on a separate line"
        )
    try:
        return json.loads(line, object_pairs_hook=distinct_keys)
    except json.JSONDecodeError as error:
        fault = f"{error.msg.lower().removesuffix(' at')} at column {error.pos + 1}"
        raise DataError(f"{path}:{number}: not JSON ({fault}). Fix or remove that line") from error
    except (ValueError, RecursionError) as error:
        # Too many digits, a duplicate key, or nested too deeply.
        raise DataError(f"{path}:{number}: not JSON ({error}). Fix or remove that line") from error


def _object(path: Path, number: int, row: Any, columns: Columns | None) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise DataError(
            f"{path}:{number}: expected an object, found {type(row).__name__}. Fix or remove that line"
        )
    if columns is None or not row:
        return row
    return {name: row[name] for name in columns.known_of(path, list(row))}


READERS: dict[str, Callable[[Path, Columns | None], Numbered]] = {
    ".parquet": _parquet, ".jsonl": _json, ".json": _json, ".ndjson": _json, ".csv": csv_rows, ".tsv": tsv_rows,
    ".arrow": _arrow, ".feather": _arrow,
}  # fmt: skip
