"""The pictures of an import: files under a root, members of zip archives, bytes inside a row.

What it promises: a name is looked for as a file first, then as a member of the archives; nothing is ever extracted by
a name that an archive gives; of no picture more than `MAX_BYTES` are read. What it does not do: remember what it saw
(`Ledger`), or decide what becomes of a row (`CorpusBuilder`).
"""

import hashlib
import lzma
import zipfile
import zlib
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import IO, Self

from miner.importers.rows import Rejected
from unijudge.errors import BadImage, DataError
from unijudge.images import MAX_BYTES, open_image
from unijudge.names import inside

ENDINGS = {b"\xff\xd8": "jpg", b"\x89P": "png", b"RI": "webp"}
UNREADABLE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError)


@dataclass(frozen=True)
class Picture:
    """What is known of a picture that was opened once."""

    sha256: str
    ending: str
    """Of its file's name, by its format: `png`, `jpg` or `webp`."""
    plain: bool
    """It is a file under the root, so it can stay where it is."""


def inspect(data: bytes, *, plain: bool) -> Picture:
    """Opens a picture, safely.

    Raises:
        Rejected: It is not a whole picture of a size that we open.
    """
    try:
        open_image(data)
    except BadImage as error:
        raise Rejected(str(error)) from error
    return Picture(hashlib.sha256(data).hexdigest(), ENDINGS[data[:2]], plain)


class Pictures:
    """Reads pictures by name."""

    def __init__(self, images: Path):
        """`images` is the root of all names: a folder, which may hold zip archives, or one zip archive.

        Raises:
            DataError: No such folder or archive.
        """
        self._images = images
        if images.is_dir():
            self.root: Path | None = images.resolve()
        elif images.suffix == ".zip" and images.is_file():
            self.root = None
        else:
            raise DataError(f"{images}: no such folder of images; set --images to the root of the image paths")
        self._open = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def relative(self, name: str) -> str:
        """The name of a picture under the root: a corpus holds no whole path, so that it can be moved and published."""
        name = _usual(name)
        if not isinstance(self.root, Path) or not name.startswith("/"):
            return name
        path = Path(name).resolve()
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else name

    def read(self, name: str) -> tuple[bytes, bool]:
        """The bytes of a picture, and whether it is a plain file.

        Raises:
            Rejected: No such picture, it cannot be read, or its name is one that a corpus cannot hold.
            DataError: An archive is not a whole zip file.
        """
        data = None if self.root is None else self._file(self.root, self.relative(name))
        return (self._member(name), False) if data is None else (data, True)

    def _file(self, root: Path, name: str) -> bytes | None:
        try:
            path = (root / name).resolve()
        except RuntimeError as error:
            raise Rejected("a loop of symbolic links") from error
        if not path.is_relative_to(root):
            raise Rejected(f"outside of {root}")
        try:
            inside(name)
        except ValueError as error:
            raise Rejected(f"{error}; name it by its path under --images, without ..") from error
        try:
            with path.open("rb") as file:
                return _bounded(file)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Rejected(f"cannot be read ({error.strerror})") from error

    @cached_property
    def _archives(self) -> list[tuple[str, zipfile.ZipFile]]:
        """With their names; opened when a picture is no file. Tables of contents take a kilobyte a member in memory."""
        if self.root is None:
            paths = [self._images]
        else:
            paths = sorted(path for pattern in ("*.zip", "*/*.zip") for path in self.root.glob(pattern))
        return [(path.stem, self._archive(path)) for path in paths]

    def _archive(self, path: Path) -> zipfile.ZipFile:
        try:
            return self._open.enter_context(zipfile.ZipFile(self._open.enter_context(path.open("rb"))))
        except UNREADABLE as error:
            raise DataError(f"{path}: not a whole zip file ({error}); fetch it again, or move it away") from error

    def _member(self, name: str) -> bytes:
        """By its name, where the archives are unpacked at the root or in a folder called like the archive.

        A name may begin with folders that the archive leaves out, if the last of them is called like the archive:
        else it would be found in the archive of another data set.
        """
        found = self._members(lambda _: [name])
        found = found or self._members(lambda stem: _after(stem, name))
        if len(found) > 1:
            raise Rejected(f"{name} is in {len(found)} zip files; give --images the one that is meant")
        if found:
            return _read_member(*found[0])
        raise Rejected("no such file" + (f", nor in {len(self._archives)} zip files" if self._archives else ""))

    def _members(self, tails: Callable[[str], list[str]]) -> list[tuple[zipfile.ZipFile, zipfile.ZipInfo]]:
        """At most one of each archive."""
        found = []
        for stem, archive in self._archives:
            names = [name for tail in tails(stem) for name in (tail, f"{stem}/{tail}")]
            infos = filter(None, (_info(archive, name) for name in names))
            found += [(archive, info) for info in islice(infos, 1)]
        return found


def _usual(name: str) -> str:
    """One way to write a name: `/` between folders, no `.` and no empty folder in it."""
    return PurePosixPath(name.replace("\\", "/")).as_posix()


def _after(stem: str, name: str) -> list[str]:
    """What of a name stands after a folder called `stem`; longest first.

    Example:
        >>> _after("CIRR", "images/CIRR/Train/a.png"), _after("SUN397", "images/CIRR/Train/a.png")
        (['Train/a.png'], [])
    """
    *folders, _ = parts = PurePosixPath(_usual(name)).parts
    if ".." in parts:
        return []
    return ["/".join(parts[place + 1 :]) for place, folder in enumerate(folders) if folder == stem]


def _info(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo | None:
    try:
        info = archive.getinfo(name)
    except KeyError:
        return None
    return None if info.is_dir() else info


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    if info.file_size > MAX_BYTES:
        raise Rejected(f"larger than {MAX_BYTES:,} bytes; scale it down")
    try:
        with archive.open(info) as file:
            return _bounded(file)
    except UNREADABLE as error:
        raise Rejected(f"cannot be read from its zip file ({error})") from error


def _bounded(file: IO[bytes]) -> bytes:
    data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise Rejected(f"larger than {MAX_BYTES:,} bytes; scale it down")
    return data
