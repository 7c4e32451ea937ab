"""Zip archives with any number of members: each member takes sixteen bytes of memory.

The standard library creates an object of about a kilobyte for every member. Here the table of contents is read once, in
order, but not kept in memory. A member's entry is read again when that member is wanted. The standard library reads the
content of a member.
"""

import io
import struct
import zipfile
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import IO

import numpy as np

from unijudge.storage.names import usual

END = struct.Struct("<4s4H2LH")
"""The last record of an archive: …, size and offset of the table of contents, length of the comment."""
END64 = struct.Struct("<4sQ2H2L4Q")
LOCATOR64 = struct.Struct("<4sLQL")
ENTRY = struct.Struct("<4s6H3L5H2L")
LONGEST_COMMENT = 2**16
ARCHIVE_PIECE = 2**20
"""Bytes of the table of contents in one read."""
LONGEST_ENTRY = ENTRY.size + 3 * (2**16 - 1)
IN_EXTRA = 0xFFFFFFFF
"""The mark of a size or an offset that needs eight bytes, which are in the entry's extra field."""
ZIP64 = 1
SAYS_UTF8 = 0x800


class _File(zipfile.ZipFile):
    """An archive whose table of contents the standard library does not read."""

    def _RealGetContents(self) -> None:
        pass


@dataclass(frozen=True)
class _Places:
    """An index from the hash of a name to the offsets of its entries."""

    hashes: np.ndarray
    places: np.ndarray
    """Offsets of entries. Entries with equal hashes are in the order of the archive."""

    @classmethod
    def of(cls, found: Iterator[tuple[str, int]]) -> "_Places":
        hashes, places = array("q"), array("q")
        for name, place in found:
            hashes.append(hash(name))
            places.append(place)
        all_hashes = np.asarray(hashes, np.int64)
        all_places = np.asarray(places, np.int64)
        order = np.argsort(all_hashes, kind="stable")
        return cls(all_hashes[order], all_places[order])

    def __getitem__(self, name: str) -> list[int]:
        left = np.searchsorted(self.hashes, hash(name), "left")
        right = np.searchsorted(self.hashes, hash(name), "right")
        return [int(place) for place in self.places[left:right]]


class Archive:
    """A zip file."""

    def __init__(self, stem: str, file: IO[bytes]):
        """Reads the table of contents.

        Raises:
            BadZipFile: The file is damaged or not a zip file.
        """
        self.stem = stem
        self._file = file
        self._zip = _File(file)
        self._start, self._end, self._moved = _contents(file)
        self._places = _Places.of(self._names())

    def find(self, name: str) -> zipfile.ZipInfo | None:
        """Returns the last member with this exact name, or else a member whose normal name is this name, or None."""
        infos = [self._info(place) for place in self._places[name]]
        for info in reversed(infos):
            if info.filename == name:
                return info
        for info in infos:
            if _usual(info.filename, info.flag_bits) == name:
                return info
        return None

    def alike(self, name: str) -> str | None:
        """Returns a member's normal name that differs from `name` only in case or by a parent folder, or None."""
        folded = name.casefold()
        for place in self._folded[folded]:
            info = self._info(place)
            found = _usual(info.filename, info.flag_bits)
            if found.casefold() == folded:
                return found

        # Only a missing name gets here, so reading all names is affordable.
        for _, raw_name, flags in self._entries():
            found = _usual(raw_name, flags)
            if found.casefold().endswith(f"/{folded}"):
                return found
        return None

    def open(self, info: zipfile.ZipInfo) -> IO[bytes]:
        """Opens the content of a member."""
        return self._zip.open(info)

    @cached_property
    def _folded(self) -> _Places:
        """Returns the index of names without case. It is built only when a name is missing."""
        entries = self._entries()
        return _Places.of((_usual(name, flags).casefold(), place) for place, name, flags in entries)

    def _names(self) -> Iterator[tuple[str, int]]:
        """Yields every member's name, and the normal name if it differs, with the offset of the entry."""
        for place, name, flags in self._entries():
            yield name, place
            known = _usual(name, flags)
            if known != name:
                yield known, place

    def _entries(self) -> Iterator[tuple[int, str, int]]:
        """Yields offset, name and flags of every entry that is not a folder."""
        place, data, begun = self._start, b"", 0
        while place < self._end:
            # The piece must hold the whole next entry, which has at most three fields of 64 KB.
            if len(data) - begun < LONGEST_ENTRY:
                self._file.seek(place)
                data, begun = self._file.read(min(ARCHIVE_PIECE, self._end - place)), 0
            name, flags, size = _named(data, begun)
            if not name.endswith("/"):
                yield place, name, flags
            place, begun = place + size, begun + size

    def _info(self, place: int) -> zipfile.ZipInfo:
        self._file.seek(place)
        entry = self._file.read(ENTRY.size)
        entry += self._file.read(sum(ENTRY.unpack(entry)[10:13]))  # name, extra field, comment
        name, flags, _ = _named(entry)
        *_, kind, _, _, crc, packed, size, name_length, extra_length, _, _, _, _, start = (
            ENTRY.unpack_from(entry)
        )
        info = zipfile.ZipInfo(name)
        info.flag_bits, info.compress_type, info.CRC = flags, kind, crc
        extra = entry[ENTRY.size + name_length :][:extra_length]
        info.file_size, info.compress_size, start = _long(extra, (size, packed, start))
        info.header_offset = start + self._moved
        return info


def _named(data: bytes, begun: int = 0) -> tuple[str, int, int]:
    """Returns the name, the flags and the length of the entry at `begun`.

    Raises:
        BadZipFile: No entry begins there, or the entry is truncated.
    """
    if data[begun : begun + 4] != b"PK\1\2" or len(data) < begun + ENTRY.size:
        raise zipfile.BadZipFile("Bad magic number for central directory")
    _, _, _, flags, *_, name_length, extra_length, comment_length, _, _, _, _ = ENTRY.unpack_from(
        data, begun
    )
    size = ENTRY.size + name_length + extra_length + comment_length
    if len(data) < begun + size:
        raise zipfile.BadZipFile("Truncated central directory")
    name_at = begun + ENTRY.size
    name = data[name_at : name_at + name_length]
    encoding = "utf-8" if flags & SAYS_UTF8 else "cp437"
    return name.decode(encoding, "replace"), flags, size


def _contents(file: IO[bytes]) -> tuple[int, int, int]:
    """Returns the start and end of the table of contents, and the shift to add to all offsets in the table.

    Raises:
        BadZipFile: The file has no table of contents.
    """
    length = file.seek(0, io.SEEK_END)
    tail_at = max(0, length - LONGEST_COMMENT - END.size)
    file.seek(tail_at)
    tail = file.read()
    found = tail.rfind(b"PK\5\6")
    if found < 0 or len(tail) < found + END.size:
        raise zipfile.BadZipFile("File is not a zip file")
    *_, size, start, _ = END.unpack_from(tail, found)
    end = tail_at + found

    # A large archive has a second, longer record before the last one.
    file.seek(max(0, end - LOCATOR64.size))
    if file.read(4) == b"PK\6\7":
        file.seek(end - LOCATOR64.size - END64.size)
        record = file.read(END64.size)
        if record[:4] == b"PK\6\6" and len(record) == END64.size:
            *_, size, start = END64.unpack(record)
            end -= LOCATOR64.size + END64.size
    # Other bytes may precede the archive, such as a self-extracting program.
    moved = end - size - start
    if start + moved < 0:
        raise zipfile.BadZipFile("Bad offset for central directory")
    return start + moved, end, moved


def _long(extra: bytes, values: tuple[int, int, int]) -> list[int]:
    """Returns the sizes and the offset of a member. Values of eight bytes are taken from its extra field, in order."""
    longer: Iterator[tuple[int]] = iter(())
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        at += 4
        if kind == ZIP64:
            numbers = min(length, len(extra) - at) // 8
            longer = struct.iter_unpack("<Q", extra[at : at + 8 * numbers])
        at += length

    found = list(values)
    for index, value in enumerate(values):
        if value == IN_EXTRA:
            (found[index],) = next(longer, (value,))
    return found


def _usual(name: str, flags: int) -> str:
    """Returns the normal name of a member. macOS writes UTF-8 without the UTF-8 flag, which Python decodes as cp437."""
    if name.isascii() or flags & SAYS_UTF8:
        return usual(name)
    try:
        return usual(name.encode("cp437").decode())
    except UnicodeError:
        return usual(name)
