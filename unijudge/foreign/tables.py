"""The rows of files in Parquet, Arrow, JSON, JSON lines, CSV or TSV, in order and in bounded memory.

Blank lines are no rows. A column that stands twice in a file is refused: one of the two would be lost. Columns that the
reader does not know are left out, and named in one warning.
"""

import csv
import glob
import itertools
import json
import logging
import os.path
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from unijudge.errors import DataError
from unijudge.foreign.cells import Unreadable
from unijudge.foreign.json_rows import LONGEST_ROW, array_rows, distinct_keys
from unijudge.formats.tables import open_parquet
from unijudge.shown import listed, shown
from unijudge.storage.access_errors import in_one_line
from unijudge.storage.listing import all_files, matching
from unijudge.storage.locations import is_local
from unijudge.storage.stores import exists, is_file, is_folder
from unijudge.storage.texts import COMPRESSED, HEAD, NO_UTF_8, TORN, check_no_pointer, open_text

ROWS_AT_ONCE = 16
"""Of a Parquet file, at most: its rows may hold pictures of some megabytes."""
BYTES_AT_ONCE = 2**23
"""Of a Parquet file, as far as one knows from its averages."""
NO_ROWS = frozenset(
    {"config.json", "dataset_dict.json", "dataset_info.json", "dataset_infos.json", "dummy_data.zip", "state.json"}
)
"""What the library `datasets` writes beside rows."""
BINARY = frozenset({".parquet", ".arrow", ".feather"})
ARROW_FILE = b"ARROW1"
"""How a file of Arrow begins; a stream has no such beginning."""
LARGE_PAGE = 2**27
"""Bytes of a page above which a person is told what it takes."""
ARROW_ROWS_IN_PAGE = 1024
"""Arrow looks at a page's size after so many rows."""
FORGOTTEN_ABOVE = 1000
"""Names of unknown columns that are remembered."""

logger = logging.getLogger(__name__)

Numbered = Iterator[tuple[int, dict[str, Any]]]
"""Rows, each with its number, or with the line where it begins."""


@dataclass
class Columns:
    """What a reader knows of the columns of its files, and what it met."""

    is_known: Callable[[str], bool]
    expected: str
    """The known ones, in words."""
    strict: bool = False
    """Whether an unknown column is an error."""
    unknown: dict[str, None] = field(default_factory=dict)

    def known_of(self, path: Path, names: Sequence[str]) -> list[str]:
        """The known ones of some columns; the others are remembered.

        Raises:
            DataError: There is an unknown one, and that is an error; or there is no other.
        """
        known = [name for name in names if self.is_known(name)]
        if len(known) == len(names):
            return known
        unknown = [name for name in names if not self.is_known(name)]
        if self.strict or not known:
            kind = "unknown columns" if known else "none of its columns is known:"
            raise DataError(f"{path}: {kind} {listed(unknown)}; known are {self.expected}")
        if len(self.unknown) < FORGOTTEN_ABOVE:
            self.unknown.update(dict.fromkeys(filter(None, unknown)))
        return known

    def tell_unknown(self, place: object) -> None:
        """Names the unknown ones in one line of the log."""
        if self.unknown:
            names = listed(list(self.unknown))
            logger.warning("%s: columns that are not read: %s; known are %s", place, names, self.expected)


def files_of(places: Sequence[Path]) -> list[Path]:
    """The files of tables that some places stand for: files, folders with such files, and patterns of a shell.

    Raises:
        DataError: A place holds no file.
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
        raise DataError(f"{place}: no file of rows is there; expected {', '.join(READERS)}")
    return sorted(found)


def _named(place: Path) -> list[Path]:
    """What a pattern of a shell names; in a store, a pattern of names in one folder."""
    if not is_local(place):
        return matching(place.parent, place.name)
    return matching(Path(place.anchor), str(place.relative_to(place.anchor)))


def name_of(path: Path) -> str:
    """A file's name without its endings, also those of a compressed file."""
    return Path(path.stem).stem if path.suffix.lower() in COMPRESSED else path.stem


def shared_folder(files: Sequence[Path]) -> str:
    """The folder that holds all of some files, in its subfolders too."""
    folders = [str(path)[: -len(path.name)] for path in files]
    return os.path.commonprefix(folders).rpartition("/")[0]  # noqa: RUF071  of URLs, too


def read_rows(path: Path, columns: Columns | None = None) -> Numbered:
    """Yields every row of one file as a mapping.

    Args:
        path: Its ending says what it is: .parquet, .jsonl, .json, .ndjson, .csv, .tsv or .arrow; compressed text has
            one more.
        columns: The known ones, which are read; all of them if none.

    Raises:
        DataError: Another ending, no such file, or one that cannot be read as what it says.
    """
    kind = ending_of(path)
    if kind not in READERS:
        raise DataError(f"{path}: expected a .parquet, .jsonl, .json, .csv, .tsv or .arrow file; unpack or convert it")
    if not is_file(path):
        raise DataError(f"{path}: no such file")
    with reading_rows(path):
        yield from READERS[kind](path, columns)


def ending_of(path: Path) -> str:
    """The ending that says what a file holds, in small letters."""
    return (Path(path.stem) if path.suffix.lower() in COMPRESSED else path).suffix.lower()


@contextmanager
def reading_rows(path: Path) -> Iterator[None]:
    """Maps what can go wrong while the rows of a file are read.

    Raises:
        DataError: The file cannot be read as what its ending says.
    """
    try:
        yield
    except DataError:
        raise
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is no UTF-8 text ({in_one_line(error)}); {NO_UTF_8}") from error
    except (pa.ArrowException, *TORN, csv.Error) as error:
        raise DataError(
            f"{path}: cannot be read as {ending_of(path)[1:]} ({in_one_line(error)}); fetch the file again"
        ) from error


def parquet_rows(path: Path, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """Yields the rows of a Parquet file, or some columns of them; a cell that is no value is `Unreadable`.

    Raises:
        DataError: A column stands there twice.
    """
    with open_parquet(path, piecewise=True) as file:
        names = [name for name in file.schema_arrow.names if columns is None or name in columns]
        _check_distinct(path, names)
        _warn_of_large_pages(path, file.metadata)
        for group in range(file.num_row_groups):
            rows = _rows_at_once(file.metadata.row_group(group))
            for batch in file.iter_batches(rows, row_groups=[group], columns=names):
                yield from _values(batch)


def _warn_of_large_pages(path: Path, metadata: Any) -> None:
    """Says what reading will take where that is much: Arrow reads a page as a whole, and holds it twice."""
    if not metadata.created_by.startswith("parquet-cpp"):  # other writers end a page at a megabyte
        return
    largest = max((_page_of(metadata.row_group(number)) for number in range(metadata.num_row_groups)), default=0)
    if largest > LARGE_PAGE:
        logger.warning(
            "%s: its pages have up to about %s MB, and reading takes twice as much memory; where that is too much, "
            "write it again with fewer rows in a row group (row_group_size of pyarrow and pandas)",
            path, f"{largest // 10**6:,}",
        )  # fmt: skip


def _page_of(group: Any) -> int:
    """About the bytes of a row group's largest page, as Arrow writes it: all columns are counted as one.

    A damaged footer may not be asked for one column alone: Arrow (26) ends the whole process then, without an error.
    """
    return int(group.total_byte_size * min(1, ARROW_ROWS_IN_PAGE / max(group.num_rows, 1)))


def _rows_at_once(group: Any) -> int:
    average = group.total_byte_size // max(group.num_rows, 1)
    return max(1, min(ROWS_AT_ONCE, BYTES_AT_ONCE // max(average, 1)))


def _values(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    """Row by row, so that one row alone is copied."""
    columns = list(zip(batch.schema.names, batch.columns, strict=True))
    for row in range(batch.num_rows):
        yield {name: _value(name, column, row) for name, column in columns}


def _value(name: str, column: pa.Array, row: int) -> Any:
    try:
        return column[row].as_py()
    except UnicodeDecodeError:
        return Unreadable(f"column {shown(name)}: not UTF-8")
    except Exception as error:  # noqa: BLE001  a date that Python cannot hold, a type that Arrow does not convert
        return Unreadable(f"column {shown(name)}: {in_one_line(error)}")


def _parquet(path: Path, columns: Columns | None) -> Numbered:
    with open_parquet(path) as file:
        names = file.schema_arrow.names
    known = names if columns is None else columns.known_of(path, names)
    yield from enumerate(parquet_rows(path, known), start=1)


def _arrow(path: Path, columns: Columns | None) -> Numbered:
    """As the library `datasets` keeps rows, a stream; or a file of Arrow, also called Feather."""
    with path.open("rb") as raw:
        head = raw.read(HEAD)
        check_no_pointer(path, head)
        raw.seek(0)
        read = pa.ipc.open_file if head.startswith(ARROW_FILE) else pa.ipc.open_stream
        with pa.memory_map(str(path)) if is_local(path) else pa.PythonFile(raw, "r") as file, read(file) as reader:
            names = reader.schema.names if columns is None else columns.known_of(path, reader.schema.names)
            _check_distinct(path, names)
            count = itertools.count(1)
            for batch in _batches(reader):
                yield from zip(count, _values(batch.select(names)), strict=False)


def _batches(reader: Any) -> Iterator[pa.RecordBatch]:
    """Those of a stream, which is read once, or of a file."""
    if hasattr(reader, "num_record_batches"):
        return (reader.get_batch(number) for number in range(reader.num_record_batches))
    return iter(reader)


def _json(path: Path, columns: Columns | None) -> Numbered:
    """Objects one a line, or one array of them: what the file begins with decides."""
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
            line = line.removeprefix("\ufeff")  # files that were put together keep the mark of each
            if number == 1 and line.strip() == "{":
                raise DataError(
                    f"{path}: is one object over several lines, no rows; write an array of objects, or one in a line"
                )
            if line.strip():
                yield number, _object(path, number, _parsed(path, number, line), columns)


def _parsed(path: Path, number: int, line: str) -> Any:
    if len(line) > LONGEST_ROW:
        raise DataError(f"{path}:{number}: more than {LONGEST_ROW:,} characters; put each row in a line of its own")
    try:
        return json.loads(line, object_pairs_hook=distinct_keys)
    except json.JSONDecodeError as error:
        place = f"{error.msg.lower().removesuffix(' at')} at column {error.pos + 1}"
        raise DataError(f"{path}:{number}: not JSON ({place}); mend that line, or take it out") from error
    except (ValueError, RecursionError) as error:  # too many digits, a key twice, or nested too deeply
        raise DataError(f"{path}:{number}: not JSON ({error}); mend that line, or take it out") from error


def _object(path: Path, number: int, row: Any, columns: Columns | None) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise DataError(f"{path}:{number}: expected an object, found {type(row).__name__}")
    return row if columns is None or not row else {name: row[name] for name in columns.known_of(path, list(row))}


def _csv(path: Path, columns: Columns | None, separator: str = ",") -> Numbered:
    csv.field_size_limit(LONGEST_ROW)
    with open_text(path, newline="") as file:
        rows = _fields(path, csv.reader(file, delimiter=separator, strict=True))
        _, first = next(rows, (0, []))
        names = [name.strip() for name in first]
        _check_separator(path, names, separator)
        known = names if columns is None else columns.known_of(path, names)
        _check_distinct(path, known)
        for line, fields in rows:
            if fields and len(fields) != len(names):
                raise DataError(
                    f"{path}:{line}: not as many fields as the first line has names ({len(fields)}, not {len(names)}); "
                    "put quotes around fields with separators in them"
                )
            if fields:
                yield line, {name: cell for name, cell in zip(names, fields, strict=True) if name in known}


def _fields(path: Path, reader: Any) -> Iterator[tuple[int, list[str]]]:
    """The fields of each row, and the line where it begins.

    Raises:
        DataError: A quotation mark opens a field, and none closes it: all rows until the next one would be its text.
    """
    line = 1
    try:
        for fields in reader:
            yield line, fields
            line = reader.line_num + 1
    except csv.Error as error:
        if "field limit" in str(error):
            raise
        raise DataError(
            f"{path}:{line}: the quotation marks of that row are not in pairs ({error}); inside of a field write each "
            "of them twice, and put one before and one after the field"
        ) from error


def _tsv(path: Path, columns: Columns | None) -> Numbered:
    return _csv(path, columns, "\t")


def _check_separator(path: Path, names: Sequence[str], separator: str) -> None:
    kinds = {";": "semicolons", "\t": "tabs", "|": "bars", ",": "commas"}
    found = next((mark for mark in kinds if mark != separator and len(names) == 1 and mark in names[0]), None)
    if found:
        raise DataError(
            f"{path}: its columns are separated by {kinds[found]}, not by {kinds[separator]}; save it with "
            f"{kinds[separator]}" + (", or call it .tsv" if found == "\t" else "")
        )


def _check_distinct(path: Path, names: Sequence[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"{path}: column {shown(twice[0])} is there twice; rename or remove one of the two")


READERS: dict[str, Callable[[Path, Columns | None], Numbered]] = {
    ".parquet": _parquet, ".jsonl": _json, ".json": _json, ".ndjson": _json, ".csv": _csv, ".tsv": _tsv,
    ".arrow": _arrow, ".feather": _arrow,
}  # fmt: skip
