"""Text that people write: UTF-8 with or without a byte-order mark, plain or compressed; UTF-16 and UTF-32 are named."""

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
"""How files in other encodings begin; the mark of UTF-32 begins with that of UTF-16."""
LFS = b"version https://git-lfs"
"""How the text begins that Git puts in the place of a large file."""
HEAD_BYTES = len(LFS)
"""Bytes of a file that are looked at for that."""
NO_TEXT = (
    (b"PK\3\4", "a zip archive, as .xlsx is; unpack it, or save the sheet as CSV UTF-8"),
    (b"\x1f\x8b", "compressed with gzip; add .gz to its name"),
    (b"PAR1", "Parquet; call it .parquet"),
    (b"%PDF", "a PDF; export the table as CSV or JSON lines"),
    (b"<!doctype html", "a web page, as servers answer instead of a file; fetch it again"),
    (b"<html", "a web page, as servers answer instead of a file; fetch it again"),
)
"""How files begin that are called as if they held rows of text, in small letters; what they are, and what helps."""
NO_UTF_8 = "save it as UTF-8; in Excel choose CSV UTF-8, or convert it: iconv -f WINDOWS-1252 -t UTF-8"
"""What helps against text in another encoding of one byte a letter."""
COMPRESSED: dict[str, Callable[[IO[bytes]], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
"""Endings of compressed text, and what reads it."""
TORN = (EOFError, OSError, zlib.error, lzma.LZMAError)
"""What the reading of a compressed file raises."""


def wide_encoding(head: bytes) -> str | None:
    """UTF-16 or UTF-32, where a text's first bytes are of one; None for others.

    Without a mark, the zeros among the bytes of ASCII letters say it.

    Example:
        >>> wide_encoding("a".encode("utf-16")), wide_encoding("{}".encode("utf-32-le")), wide_encoding(b"{}")
        ('UTF-16', 'UTF-32', None)
    """
    named = next((name for mark, name in MARKS if head.startswith(mark)), None)
    if named or len(head) < 4:
        return named
    zeros = tuple(place for place in range(4) if head[place] == 0)
    kinds = {(1, 3): "UTF-16", (0, 2): "UTF-16", (1, 2, 3): "UTF-32", (0, 1, 2): "UTF-32"}
    return kinds.get(zeros)


def check_no_pointer(path: Path, head: bytes) -> None:
    """Refuses what Git LFS puts in the place of a large file.

    Args:
        path: Of the file.
        head: Its first bytes, at least as many as `LFS` has.

    Raises:
        DataError: It is such; the cure is named.
    """
    if head.startswith(LFS):
        raise DataError(f"{path}: is a pointer of Git LFS, not the file itself; fetch it: git lfs pull")


def check_beginning(path: Path, head: bytes) -> None:
    """Refuses text in UTF-16 or UTF-32, a pointer of Git LFS, and what is no text at all.

    Raises:
        DataError: It is such; the cure is named.
    """
    check_no_pointer(path, head)
    if name := wide_encoding(head):
        raise DataError(
            f"{path}: is {name}, as PowerShell's > writes it; save it as UTF-8: iconv -f {name} -t UTF-8, or in "
            "PowerShell Out-File -Encoding utf8"
        )
    start = head.lstrip().lower()
    for mark, what in NO_TEXT:
        if start.startswith(mark.lower()):
            raise DataError(f"{path}: is {what}")


def as_text(path: Path, data: bytes) -> str:
    """The text of a small file's bytes, with a line feed for every line break; a byte-order mark is no part of it.

    Raises:
        DataError: It is no UTF-8.
    """
    check_beginning(path, data[:HEAD_BYTES])
    try:
        return io.TextIOWrapper(io.BytesIO(data), encoding="utf-8-sig").read()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}: is no UTF-8 text (byte {data[error.start]:#x} in line {line}); {NO_UTF_8}") from error


@contextlib.contextmanager
def open_text(path: Path, newline: str | None = None) -> Iterator[TextIO]:
    """Opens a text of any size, compressed or not, on a disk or in a store.

    Args:
        path: Its last ending says how it is compressed.
        newline: As of `open`.

    Raises:
        DataError: It is UTF-16 or UTF-32, a pointer of Git LFS, or no text.
        Exception: What the disk or the store raises, and `TORN` and UnicodeDecodeError while it is read.
    """
    check_regular(path)
    with path.open("rb") as stored, _plain(path, stored) as file:
        raw: Any = file
        buffered = io.BufferedReader(raw)
        check_beginning(path, buffered.peek(HEAD_BYTES)[:HEAD_BYTES])
        yield io.TextIOWrapper(buffered, encoding="utf-8-sig", newline=newline)


def _plain(path: Path, stored: IO[bytes]) -> contextlib.AbstractContextManager[IO[bytes]]:
    """A file without its compression."""
    read = COMPRESSED.get(path.suffix.lower(), contextlib.nullcontext)
    plain: contextlib.AbstractContextManager[IO[bytes]] = read(stored)
    return plain
