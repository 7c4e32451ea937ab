"""Text files that people write: UTF-8 with or without a byte-order mark, plain or compressed.

UTF-16 and UTF-32 are recognised and refused with a cure.
"""

import bz2
import codecs
import contextlib
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, TextIO

from unijudge.errors import DataError
from unijudge.storage.locations import check_regular

BYTE_ORDER_MARK = "\ufeff"
MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"), (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"), (codecs.BOM_UTF16_BE, "UTF-16"),
)  # fmt: skip
"""First bytes of files in other encodings. UTF-32 comes first, because its mark begins with the mark of UTF-16."""
LFS = b"version https://git-lfs"
"""First bytes of the pointer file that Git LFS puts in the place of a large file."""
HEAD_BYTES = len(LFS)
"""Bytes at the beginning of a file that the checks read."""
NO_TEXT = (
    (
        b"PK\3\4",
        "a zip archive (.xlsx is a zip archive too). Unpack it, or save the sheet as CSV UTF-8",
    ),
    (b"\x1f\x8b", "compressed with gzip. Add .gz to its name"),
    (b"PAR1", "a Parquet file. Rename it to .parquet"),
    (b"%PDF", "a PDF. Export the table as CSV or JSON lines"),
    (b"<!doctype html", "a web page, which a server sent instead of the file. Download it again"),
    (b"<html", "a web page, which a server sent instead of the file. Download it again"),
)
"""First bytes (letters ignore case) of files that are not text despite their name → what they are, and the cure."""
NO_UTF_8 = (
    "Save it as UTF-8. In Excel choose CSV UTF-8, or convert it: iconv -f WINDOWS-1252 -t UTF-8"
)
"""The cure for text in a one-byte encoding."""
COMPRESSED: dict[str, Callable[[IO[bytes]], Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
}
"""Suffix of a compressed text → the function that opens it."""
TORN = (EOFError, OSError, zlib.error, lzma.LZMAError)
"""Errors of a damaged compressed file."""


def wide_encoding(head: bytes) -> str | None:
    """Returns "UTF-16" or "UTF-32" if a text begins in this encoding, else None.

    Without a byte-order mark, the zero bytes of ASCII letters reveal the encoding.

    Example:
        >>> wide_encoding("a".encode("utf-16")), wide_encoding("{}".encode("utf-32-le")), wide_encoding(b"{}")
        ('UTF-16', 'UTF-32', None)
    """
    for mark, name in MARKS:
        if head.startswith(mark):
            return name
    if len(head) < 4:
        return None

    # Among the first four bytes, the positions of the zero bytes.
    zeros = tuple(position for position in range(4) if head[position] == 0)
    if zeros in ((1, 3), (0, 2)):
        return "UTF-16"
    if zeros in ((1, 2, 3), (0, 1, 2)):
        return "UTF-32"
    return None


def check_no_pointer(path: Path, head: bytes) -> None:
    """Refuses the pointer file that Git LFS puts in the place of a large file.

    Args:
        path: The path of the file, for the message.
        head: The first bytes of the file, at least `HEAD` of them.

    Raises:
        DataError: The file is a pointer; the message names the cure.
    """
    if head.startswith(LFS):
        raise DataError(
            f"{path}: is a pointer of Git LFS, not the file itself. Fetch it: git lfs pull"
        )


def check_beginning(path: Path, head: bytes) -> None:
    """Refuses text in UTF-16 or UTF-32, a pointer of Git LFS, and files that are not text.

    Raises:
        DataError: The file is refused; the message names the cure.
    """
    check_no_pointer(path, head)
    if name := wide_encoding(head):
        raise DataError(
            f"{path}: is {name}, the encoding of PowerShell's > operator. Save it as UTF-8: iconv -f {name} -t UTF-8, "
            "or in PowerShell Out-File -Encoding utf8"
        )
    start = head.lstrip().lower()
    for mark, what in NO_TEXT:
        if start.startswith(mark.lower()):
            raise DataError(f"{path}: is {what}")


def as_text(path: Path, data: bytes) -> str:
    """Decodes the bytes of a small file. Every line break becomes a line feed, and a byte-order mark is removed.

    Raises:
        DataError: The bytes are not UTF-8.
    """
    check_beginning(path, data[:HEAD_BYTES])
    try:
        return io.TextIOWrapper(io.BytesIO(data), encoding="utf-8-sig").read()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}: is not UTF-8 (byte {data[error.start]:#x} in line {line}). {NO_UTF_8}"
        ) from error


@contextlib.contextmanager
def open_text(path: Path, newline: str | None = None) -> Iterator[TextIO]:
    """Opens a text file of any size, compressed or not, on a disk or in a store.

    Args:
        path: The path of the file. Its last suffix tells the compression.
        newline: The argument of `open`.

    Raises:
        DataError: The file is UTF-16 or UTF-32, a pointer of Git LFS, or not text.
        Exception: An error of the disk or the store. Reading may raise the errors in `TORN`, and UnicodeDecodeError.
    """
    check_regular(path)
    with path.open("rb") as stored, _plain(path, stored) as file:
        raw: Any = file
        buffered = io.BufferedReader(raw)
        check_beginning(path, buffered.peek(HEAD_BYTES)[:HEAD_BYTES])
        yield io.TextIOWrapper(buffered, encoding="utf-8-sig", newline=newline)


def _plain(path: Path, stored: IO[bytes]) -> contextlib.AbstractContextManager[IO[bytes]]:
    """Opens a stored file without its compression."""
    read = COMPRESSED.get(path.suffix.lower(), contextlib.nullcontext)
    plain: contextlib.AbstractContextManager[IO[bytes]] = read(stored)
    return plain
