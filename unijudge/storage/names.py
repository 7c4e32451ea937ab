"""The names of files that a table or a manifest gives: a stranger wrote them, and they decide what is read."""

import re
import unicodedata
from collections.abc import Callable, Collection
from pathlib import PurePosixPath

from unijudge.shown import shown

OUTSIDE = r"^\.?$|^/|(^|/)\.\.(/|$)|://|\\|\x00"
"""What a name of a file inside a folder never matches; for Python and for Arrow."""

LEFT_BEHIND = re.compile(
    r"\._.*|\.ds_store|\.localized|\.directory|\.apple(double|db|desktop)|\.(spotlight|trash|fseventsd|temporaryitems).*"
    r"|(eh)?thumbs(_vista)?\.db|desktop\.ini|\$recycle\.bin|system volume information|__macosx|icon\r|@eadir|\.nfs.*"
    r"|\.fuse_hidden.*|\.ipynb_checkpoints|lost\+found|\.snapshots?|#recycle|#snapshot|\.gitkeep|\.keep",
    re.IGNORECASE,
)
"""What file managers, operating systems and notebooks put beside the files of a person."""

_UNUSUAL = re.compile(r"\\|(^|/)\.?(/|$)")


def is_left_behind(name: str) -> bool:
    """Whether a file or folder was put there by a file manager or a system, not by a person.

    Example:
        >>> [is_left_behind(name) for name in ("._a.zip", "Thumbs.db", ".env", "a.zip")]
        [True, True, False, False]
    """
    return LEFT_BEHIND.fullmatch(name) is not None


def is_side_file(name: str) -> bool:
    """Whether a file or folder is no data: hidden, or left behind.

    Example:
        >>> [is_side_file(name) for name in (".cache", "desktop.ini", "a.parquet")]
        [True, True, False]
    """
    return name.startswith(".") or is_left_behind(name)


def usual(name: str) -> str:
    r"""One way to write the name of a picture: composed letters (NFC), `/` between folders, no `.` and no empty folder.

    Example:
        >>> usual("./cafe\u0301//a\\b.png") == "caf\u00e9/a/b.png"
        True
    """
    if name.isascii() and not _UNUSUAL.search(name):  # a zip may have a million names
        return name
    return PurePosixPath(unicodedata.normalize("NFC", name.replace("\\", "/"))).as_posix()


class Listing:
    """The names in a folder or an archive, found however they are written."""

    def __init__(self, names: Collection[str], read: Callable[[str], str] = str):
        """Takes the names as they stand there, and how each is read; it keeps no copy of them."""
        self._names = names
        self._others: dict[str, str] = {}
        for name in names:
            known = usual(read(name))
            if known != name:
                self._others.setdefault(known, name)

    def find(self, name: str) -> str | None:
        """What stands there for a usual name."""
        return name if name in self._names else self._others.get(name)

    def alike(self, name: str) -> str | None:
        """A usual name that differs from this one only in case, or lies in a folder; all are looked through."""
        folded = name.casefold()
        names = (*self._others, *self._names)
        same = next((known for known in names if known.casefold() == folded), None)
        return same or next((known for known in names if known.casefold().endswith(f"/{folded}")), None)


def inside(name: str) -> str:
    """The name of a file inside a folder, as it is.

    Raises:
        ValueError: It leads out of the folder, is absolute or a URL, or is read otherwise on another system.

    Example:
        >>> inside("a b/c#1.png")
        'a b/c#1.png'
    """
    if re.search(OUTSIDE, name):
        raise ValueError(f"{shown(name)} is not a path inside the folder")
    return name
