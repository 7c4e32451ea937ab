"""The pictures of an import: files under a root, members of zip archives, or bytes inside a row.

A name is searched first as a file, then as a member of the archives. Nothing is ever extracted under a name from an
archive, and at most `MAX_BYTES` of a picture are read. This module does not remember the pictures (`Ledger` does), and
does not decide about rows (`CorpusBuilder` does).
"""

import errno
import hashlib
import lzma
import os
import re
import zipfile
import zlib
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import IO, Self
from urllib.parse import unquote

from unijudge.errors import BadImage, DataError
from unijudge.foreign.archives import Archive
from unijudge.foreign.cells import Rejected
from unijudge.images.decoding import MAX_BYTES, MAX_PIXELS, open_image
from unijudge.images.file_kind import image_kind
from unijudge.shown import shown_name
from unijudge.storage.files import names_in
from unijudge.storage.listing import matching
from unijudge.storage.locations import check_regular
from unijudge.storage.names import Listing, inside, is_side_file, usual
from unijudge.storage.stores import again, is_file, is_folder
from unijudge.storage.texts import HEAD_BYTES, check_no_pointer

ENDINGS = {"jpeg": "jpg", "png": "png", "webp": "webp"}
"""Image format → the ending of its files."""
URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
BASE64 = re.compile(r"[A-Za-z0-9+/=_\s-]+")
BEGINNINGS = ("/9j/", "iVBORw0KGgo", "UklGR", "R0lGOD")
"""The beginnings of a JPEG, a PNG, a WebP and a GIF in base64."""
SHORTEST_BASE64 = 200
"""Characters above which a text of only base64 letters counts as base64, since no path is that long without others."""
LONGEST_PATH = 4096
"""The most characters of a path."""
LISTINGS = 64
"""The number of folders whose listings are cached."""
HINTS = 20
"""The number of missing pictures for which a similar name is searched."""
ENCRYPTED = 0x1
NO_SUCH_FILE = "no such file"
"""The beginning of the reason that a picture does not exist."""
UNPACK = "Unpack it, and set --images to the folder"
UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    RuntimeError,
    UnicodeError,
)


@dataclass(frozen=True)
class ForeignPicture:
    """The properties of a picture that was opened once."""

    sha256: str
    ending: str
    """The suffix of the picture's format: `png`, `jpg` or `webp`."""
    path: str | None
    """The picture's name under the root, if the picture is a plain file and need not be copied."""


def inspect_picture(data: bytes, path: str | None, max_pixels: int = MAX_PIXELS) -> ForeignPicture:
    """Opens a picture safely.

    Args:
        data: The bytes of the picture's file.
        path: The field of `ForeignPicture`.
        max_pixels: The largest allowed width × height.

    Raises:
        Rejected: The picture is damaged, not supported or too large.
    """
    kind = image_kind(data)
    try:
        open_image(data, max_pixels)
    except BadImage as error:
        raise Rejected(str(error)) from error
    except MemoryError as error:
        raise Rejected(
            "the memory is full during decoding. Free some memory, or lower --max-pixels"
        ) from error
    assert kind is not None  # noqa: S101  `open_image` opens no other format
    return ForeignPicture(hashlib.sha256(data).hexdigest(), ENDINGS[kind], path)


def check_name(name: str) -> None:
    """Refuses a text that is not the name of a file: a URL, or a picture as text.

    Raises:
        Rejected: The text is not a file name; the message says what it is.
    """
    start = name[:LONGEST_PATH]
    if start[:5].lower() == "data:":
        raise Rejected(
            "a data: URL, not a path. Put the bytes of the file into a binary column, or save it as a file"
        )
    if start[:7].lower() == "file://":
        raise Rejected("a file:// URL. Name the file by its path")
    if URL.match(start):
        raise Rejected(
            "a URL, not a path. Nothing is downloaded here. Download the file yourself, and give its path"
        )
    if (len(name) > SHORTEST_BASE64 or start.startswith(BEGINNINGS)) and BASE64.fullmatch(start):
        raise Rejected(
            "base64 text, not a path. Put its bytes into a binary column, or save it as a file"
        )
    if len(name) > LONGEST_PATH:
        raise Rejected(f"{len(name):,} characters, too long for a path. Give a shorter path")


class Pictures:
    """A reader that finds pictures by name."""

    def __init__(self, images: Path):
        """Opens the root of all names: a folder, which may hold zip archives, or a single zip archive.

        Raises:
            DataError: The folder or the archive does not exist.
        """
        self.images = images
        """The root of all names, as the user gave it."""
        if is_folder(images):
            self.root: Path | None = images.resolve()
        elif images.suffix.lower() == ".zip" and is_file(images):
            self.root = None
        elif is_file(images):
            raise DataError(f"{images}: is neither a folder nor a .zip file. {UNPACK}")
        else:
            raise DataError(
                f"{images}: no such folder of images. Set --images to the root of the image paths"
            )
        self._open = ExitStack()
        self._listing = lru_cache(maxsize=LISTINGS)(_listing)
        self._hints = HINTS

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def relative(self, name: str) -> str:
        """Returns a picture's name under the root. A corpus has no absolute paths, so it can be moved and published."""
        if not isinstance(self.root, Path) or not name.startswith("/"):
            return usual(name)
        for root, path in (
            (self.images.absolute(), Path(name)),
            (self.root, Path(os.path.realpath(name))),
        ):
            if path.is_relative_to(root):
                return usual(str(path.relative_to(root)))
        return usual(name)

    def read(self, name: str) -> tuple[bytes, str | None]:
        """Returns the bytes of a picture, and the picture's name under the root if it is a plain file.

        Raises:
            Rejected: The picture does not exist or cannot be read, or a corpus cannot hold its name.
            DataError: An archive is damaged or not a zip file.
        """
        if self.root is not None:
            path = self.relative(name)
            data = self._file(self.root, path)
            if data is not None:
                return data, path

            # A file system may list the same name in another Unicode form.
            listed = self._as_listed(self.root, path)
            if listed is not None and listed != path:
                data = self._file(self.root, listed)
                if data is not None:
                    return data, listed
        return self._member(usual(name)), None

    def _file(self, root: Path, name: str) -> bytes | None:
        """Returns the bytes of a file under the root, or None if it does not exist. Symbolic links are followed."""
        try:
            inside(name)
        except ValueError as error:
            raise Rejected(f"{error}. Give its path under --images, without ..") from error
        path = root / name
        try:
            check_regular(path)  # a pipe may never end
            return again(path, lambda: _whole(path))
        except FileNotFoundError:
            return None
        except OSError as error:
            reason = "a loop of symbolic links" if error.errno == errno.ELOOP else error.strerror
            raise Rejected(f"cannot be read ({reason})") from error

    def _as_listed(self, root: Path, name: str, *, any_case: bool = False) -> str | None:
        """Returns the folders' own spelling of a name (other Unicode forms, or other case), or None."""
        folder, found = root, []
        for part in PurePosixPath(name).parts:
            listing = self._listing(folder)
            there = listing.find(part) or (listing.alike(part) if any_case else None)
            if there is None:
                return None
            folder = folder / there
            found.append(there)
        return "/".join(found)

    @cached_property
    def _archives(self) -> list[Archive]:
        """Returns all archives. They are opened only when a picture is not a plain file."""
        if self.root is None:
            return [self._archive(self.images)]
        found = {
            path
            for pattern in ("*.[zZ][iI][pP]", "*/*.[zZ][iI][pP]")
            for path in matching(self.root, pattern)
        }
        return [
            self._archive(path)
            for path in sorted(found)
            if not any(map(is_side_file, path.parts[-2:]))
        ]

    def _archive(self, path: Path) -> Archive:
        try:
            return Archive(path.stem, self._open.enter_context(path.open("rb")))
        except UNREADABLE as error:
            with path.open("rb") as raw:
                check_no_pointer(path, raw.read(HEAD_BYTES))
            raise DataError(
                f"{path}: not a complete zip file ({error}). Download it again, or move it away"
            ) from error

    def _member(self, name: str) -> bytes:
        """Returns a member's bytes, as if each archive were unpacked at the root or in a folder of the archive's name.

        A name may begin with folders that the archive leaves out, but only if the last of these folders has the
        archive's name. Otherwise the picture could come from the archive of another dataset.
        """
        found = self._members(lambda _: [name])
        found = found or self._members(lambda stem: _after(stem, name))
        if len(found) > 1:
            raise Rejected(
                f"{shown_name(name)} is in {len(found)} zip files. Set --images to the right zip file"
            )
        if found:
            return _read_member(*found[0])
        zips = f", nor in {len(self._archives)} zip files" if self._archives else ""
        raise Rejected(f"{NO_SUCH_FILE}{zips}{self._hint(name)}")

    def _members(self, tails: Callable[[str], list[str]]) -> list[tuple[Archive, zipfile.ZipInfo]]:
        """Returns at most one matching member of each archive."""
        found = []
        for archive in self._archives:
            names = [
                name for tail in tails(archive.stem) for name in (tail, f"{archive.stem}/{tail}")
            ]
            infos = filter(None, map(archive.find, names))
            found += [(archive, info) for info in islice(infos, 1)]
        return found

    def _hint(self, name: str) -> str:
        """Returns a hint at a picture whose name differs only in case, folders, spaces or %20.

        The search reads all names, so only the first few missing pictures get a hint.
        """
        if re.match("[A-Za-z]:/", name):
            return ". It is a path of a Windows disk. Give the path below --images"
        if not self._hints:
            return ""
        self._hints -= 1
        plain = unquote(name).strip()
        alike = self._alike(name) or self._alike(plain) or self._in_root(PurePosixPath(plain).name)
        return f". Did you mean {shown_name(alike)}?" if alike else ""

    def _alike(self, name: str) -> str | None:
        return self._in_root(name) or next(
            filter(None, (archive.alike(name) for archive in self._archives)), None
        )

    def _in_root(self, name: str) -> str | None:
        if self.root is None:
            return None
        return self._as_listed(self.root, self.relative(name), any_case=True)


def _listing(folder: Path) -> Listing:
    try:
        return Listing(names_in(folder))
    except DataError:  # a store may allow reading but not listing
        return Listing([])


def _after(stem: str, name: str) -> list[str]:
    """Returns the parts of a name after a folder called `stem`, longest first.

    Example:
        >>> _after("CIRR", "images/CIRR/Train/a.png"), _after("SUN397", "images/CIRR/Train/a.png")
        (['Train/a.png'], [])
    """
    *folders, _ = parts = PurePosixPath(name).parts
    if ".." in parts:
        return []
    return ["/".join(parts[index + 1 :]) for index, folder in enumerate(folders) if folder == stem]


def _read_member(archive: Archive, info: zipfile.ZipInfo) -> bytes:
    if info.flag_bits & ENCRYPTED:
        raise Rejected(f"encrypted in its zip file. {UNPACK}")
    if info.file_size > MAX_BYTES:
        raise Rejected(f"larger than {MAX_BYTES:,} bytes. Scale it down")
    try:
        with archive.open(info) as file:
            return _bounded(file)
    except UNREADABLE as error:
        raise Rejected(f"cannot be read from its zip file ({error}). {UNPACK}") from error


def _whole(path: Path) -> bytes:
    with path.open("rb") as file:
        return _bounded(file)


def _bounded(file: IO[bytes]) -> bytes:
    data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise Rejected(f"larger than {MAX_BYTES:,} bytes. Scale it down")
    return data
