"""Parquet files with a named, versioned schema, which is checked on every write and read.

Each row type has a `Table`, which both the writer and the reader of the format use.
"""

import contextlib
import io
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from unijudge.errors import DataError
from unijudge.shown import shown
from unijudge.storage.access_errors import unreadable
from unijudge.storage.files import publishing
from unijudge.storage.locations import is_local
from unijudge.storage.stores import again
from unijudge.storage.texts import HEAD_BYTES, check_no_pointer

ROWS_AT_ONCE = 4096
COLUMN_PIECE = 2**20
"""Bytes of a column in one read, if its row group is read in pieces."""

FOREIGN = "Another program wrote it. Delete the file, and run its writer again"
T = TypeVar("T", pa.Table, pa.RecordBatch)

_NAME, _VERSION, _STAMP = b"unijudge.table", b"unijudge.version", b"unijudge.stamp"
_NOTE = b"unijudge.note"


def open_parquet(path: Path, *, piecewise: bool = False) -> pq.ParquetFile:
    """Opens a Parquet file on a disk or in an object store, and verifies its checksums. Call it inside `reading`.

    Args:
        path: The path of the file.
        piecewise: Whether columns are read in pieces, since a row group of a foreign file may be of any size.

    Raises:
        DataError: The file is a pointer of Git LFS.
    """
    try:
        return pq.ParquetFile(
            path.absolute() if is_local(path) else _Stored(path),
            page_checksum_verification=True,
            pre_buffer=not piecewise,
            buffer_size=COLUMN_PIECE if piecewise else 0,
        )
    except pa.ArrowInvalid:
        with path.open("rb") as file:
            check_no_pointer(path, file.read(HEAD_BYTES))
        raise


def table_name(path: Path) -> str | None:
    """Returns the name of the table in a Parquet file, or None if another program wrote the file.

    Raises:
        DataError: The file cannot be read.
    """
    with reading(path), open_parquet(path) as file:
        marks = file.schema_arrow.metadata or {}
    return marks[_NAME].decode(errors="replace") if _NAME in marks else None


class _Stored(io.RawIOBase):
    """A file in an object store. Its errors are mapped here, since Arrow raises some of them for damaged bytes too."""

    def __init__(self, path: Path):
        self._path = path
        try:
            self._file = again(path, lambda: path.open("rb"))
        except FileNotFoundError:
            raise
        except Exception as error:  # each store has its own family of errors
            raise unreadable(path, error) from error

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def read(self, size: int = -1) -> bytes:
        place = self.tell()

        def once() -> bytes:
            self._file.seek(place)
            return self._file.read(size)

        try:
            return again(self._path, once)
        except Exception as error:  # each store has its own family of errors
            raise unreadable(self._path, error) from error


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Maps every error during the reading of a Parquet file. Only the message for a damaged file advises to delete it.

    Raises:
        DataError: The file is missing or damaged, or the disk or the store refused.
    """
    try:
        yield
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file. Run its writer again") from error
    except Exception as error:
        ours = type(error) is OSError and error.errno is None  # Arrow raises it for damaged content
        if isinstance(error, pa.ArrowInvalid) or ours:
            raise DataError(
                f"{path}: not a whole Parquet file, or damaged ({error}). Delete it and run its writer again"
            ) from error
        raise unreadable(path, error) from error


def checked(path: Path, rows: T, start: int, optional: Collection[str] | None = None) -> T:
    """Returns the same rows after a check that every cell is valid: another program may have written anything.

    Args:
        path: The path of the file, for the message.
        rows: Some rows of a table.
        start: The number of rows before `rows` in the file.
        optional: Columns, and fields of their structs, that may be null. With None, all may be null.

    Raises:
        DataError: A text is not UTF-8, or a required value is null. The message names row and column.
    """
    try:
        rows.validate(full=True)
    except pa.ArrowInvalid as error:
        raise _no_value(path, rows, start, error) from error
    for name in rows.schema.names if optional is not None else ():
        chunks = rows.column(name)
        for chunk in chunks.chunks if isinstance(chunks, pa.ChunkedArray) else [chunks]:
            if optional is not None and _lacks(name, chunk, optional):
                number = next(
                    row
                    for row, cell in enumerate(chunks)
                    if _lacks(name, pa.array([cell.as_py()], chunk.type), optional)
                )
                raise DataError(
                    f"{path}: row {start + number + 1}, column {shown(name)}: null where a value belongs. {FOREIGN}"
                )
    return rows


def _no_value(
    path: Path, rows: pa.Table | pa.RecordBatch, start: int, error: pa.ArrowInvalid
) -> Exception:
    """Returns the error for rows with an unreadable cell, with the row and column of the cell if they are found."""
    for name in rows.schema.names:
        for row, cell in enumerate(rows.column(name)):
            try:
                cell.as_py()
            except UnicodeDecodeError:
                return DataError(
                    f"{path}: row {start + row + 1}, column {shown(name)}: not UTF-8. {FOREIGN}"
                )
    return error


def _lacks(name: str, cells: pa.Array, optional: Collection[str]) -> bool:
    """Whether a required column, or a required field inside the column, is null."""
    if name in optional:
        return False
    if cells.null_count:
        return True
    if pa.types.is_struct(cells.type):
        return any(_lacks(field.name, cells.field(field.name), optional) for field in cells.type)
    return pa.types.is_list(cells.type) and _lacks(name, cells.flatten(), optional)


@dataclass(frozen=True)
class Table:
    """A format: its name, its version and its columns."""

    name: str
    version: int
    schema: pa.Schema
    optional: Collection[str] | None = None
    """Columns, and fields of their structs, that may be null. With None, all may be null."""

    def write(
        self,
        path: Path,
        rows: Iterable[Mapping[str, Any]],
        *,
        rows_in_group: int = 4096,
        stamp: str = "",
        note: str = "",
        rivals: bool = False,
    ) -> int:
        """Streams rows into a file, which is complete or absent.

        Args:
            path: The path of the file.
            rows: A mapping for each row.
            rows_in_group: The number of rows in a row group.
            stamp: The place of the file in a job, such as a plan and a shard number; `read` can check it.
            note: A text beside the rows, which `note` returns.
            rivals: Whether several processes may write the same file at the same time; see `publishing`.

        Returns:
            The number of rows written.

        Raises:
            DataError: A row does not fit the schema, or the disk refused.
        """
        marks = {
            _NAME: self.name.encode(),
            _VERSION: str(self.version).encode(),
            _STAMP: stamp.encode(),
        }
        if note:
            marks[_NOTE] = note.encode()
        schema = self.schema.with_metadata((self.schema.metadata or {}) | marks)
        count = 0
        stream = iter(rows)
        with (
            publishing(path, rivals=rivals) as draft,
            # Arrow would treat a relative name with a colon as a URL.
            pq.ParquetWriter(
                draft.absolute(), schema, compression="zstd", write_page_checksum=True
            ) as writer,
        ):
            while group := list(islice(stream, rows_in_group)):
                try:
                    writer.write_table(pa.Table.from_pylist(group, schema=schema))
                except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
                    raise DataError(
                        f"{path}: a row does not fit the table {self.name!r}: {error}"
                    ) from error
                count += len(group)
        return count

    def read(self, path: Path, stamp: str = "") -> Iterator[dict[str, Any]]:
        """Yields the rows of a file, with a few thousand rows in memory.

        Raises:
            DataError: The file is missing, damaged or unreadable, holds another table or version, or has another stamp.
        """
        with self.open(path, stamp) as file, reading(path):
            row = 0
            for batch in file.iter_batches(batch_size=ROWS_AT_ONCE):
                yield from checked(path, batch, row, self.optional).to_pylist()
                row += batch.num_rows

    def note(self, path: Path, stamp: str = "") -> str:
        """Returns the text beside the rows of a file; empty without a text. Only the end of the file is read.

        Raises:
            DataError: The errors of `read`.
        """
        with self.open(path, stamp) as file:
            return (file.schema_arrow.metadata or {}).get(_NOTE, b"").decode(errors="replace")

    def group(
        self, path: Path, number: int, stamp: str = "", columns: list[str] | None = None
    ) -> pa.Table:
        """Returns a row group of a file.

        Raises:
            DataError: The errors of `read`.
        """
        with self.open(path, stamp) as file, reading(path):
            start = sum(file.metadata.row_group(earlier).num_rows for earlier in range(number))
            return checked(path, file.read_row_group(number, columns=columns), start, self.optional)

    def whole(self, path: Path, stamp: str = "", columns: list[str] | None = None) -> pa.Table:
        """Returns a file as an Arrow table.

        Raises:
            DataError: The errors of `read`.
        """
        with self.open(path, stamp) as file, reading(path):
            # Column by column: to combine the chunks of a column, Arrow needs twice the memory of that column.
            whole = {}
            for name in self.schema.names if columns is None else columns:
                part = file.read(columns=[name]).combine_chunks()
                whole[name] = part[name]
            return checked(path, pa.table(whole), 0, self.optional)

    def open(self, path: Path, stamp: str = "") -> pq.ParquetFile:
        """Opens a file and checks its name, version, columns and stamp.

        Raises:
            DataError: The errors of `read`.
        """
        with reading(path):
            file = open_parquet(path)
        fault = self._fault(file.schema_arrow, stamp)
        if fault:
            file.close()
            raise DataError(f"{path}: {fault}")
        return file

    def _fault(self, schema: pa.Schema, stamp: str) -> str | None:
        marks = schema.metadata or {}
        name, version = (
            marks.get(mark, b"").decode(errors="replace") for mark in (_NAME, _VERSION)
        )
        if (name, version) != (self.name, str(self.version)):
            found = (
                f"table {name!r} version {version}" if name else "a Parquet file of another program"
            )
            return f"expected table {self.name!r} version {self.version}, found {found}"
        if schema.remove_metadata() != self.schema.remove_metadata():
            return f"its columns are not those of table {self.name!r} version {self.version}"
        if marks.get(_STAMP, b"") != stamp.encode():
            return "was written for another plan or another shard. Delete it, or give the folder where it belongs"
        return None
