"""Names of files in tables and manifests. They come from strangers and decide what is read, so they are checked."""

import re
import unicodedata
from collections.abc import Callable, Collection
from pathlib import PurePosixPath

from unijudge.shown import shown

OUTSIDE = r"^\.?$|^/|(^|/)\.\.(/|$)|://|\\|\x00"
"""A pattern that no name of a file inside a folder matches, for Python and for Arrow."""

LEFT_BEHIND = re.compile(
    r"\._.*|\.ds_store|\.localized|\.directory|\.apple(double|db|desktop)|\.(spotlight|trash|fseventsd|temporaryitems).*"
    r"|(eh)?thumbs(_vista)?\.db|desktop\.ini|\$recycle\.bin|system volume information|__macosx|icon\r|@eadir|\.nfs.*"
    r"|\.fuse_hidden.*|\.ipynb_checkpoints|lost\+found|\.snapshots?|#recycle|#snapshot|\.gitkeep|\.keep",
    re.IGNORECASE,
)
"""Names of the files that file managers, operating systems and notebooks put beside the files of a person."""

_UNUSUAL = re.compile(r"\\|(^|/)\.?(/|$)")


def is_left_behind(name: str) -> bool:
    """Whether a file manager or an operating system, and not a person, put a file or folder there.

    Example:
        >>> [is_left_behind(name) for name in ("._a.zip", "Thumbs.db", ".env", "a.zip")]
        [True, True, False, False]
    """
    return LEFT_BEHIND.fullmatch(name) is not None


def is_side_file(name: str) -> bool:
    """Whether a file or folder is not data: it is hidden, or an operating system left it there.

    Example:
        >>> [is_side_file(name) for name in (".cache", "desktop.ini", "a.parquet")]
        [True, True, False]
    """
    return name.startswith(".") or is_left_behind(name)


def usual(name: str) -> str:
    r"""Returns the normal form of an image's name: NFC, `/` between folders, no `.` and no empty folder.

    Example:
        >>> usual("./cafe\u0301//a\\b.png") == "caf\u00e9/a/b.png"
        True
    """
    if name.isascii() and not _UNUSUAL.search(name):  # a zip may have a million names
        return name
    return PurePosixPath(unicodedata.normalize("NFC", name.replace("\\", "/"))).as_posix()


class Listing:
    """The names in a folder or an archive, which can be looked up by their normal form (`usual`)."""

    def __init__(self, names: Collection[str], read: Callable[[str], str] = str):
        """Takes the names in a folder or an archive, without copying them.

        Args:
            names: The names as the folder or the archive spells them.
            read: A function that decodes a name.
        """
        self._names = names
        self._others: dict[str, str] = {}
        for name in names:
            known = usual(read(name))
            if known != name:
                self._others.setdefault(known, name)

    def find(self, name: str) -> str | None:
        """Returns the folder's own spelling of a name in its normal form, or None."""
        return name if name in self._names else self._others.get(name)

    def alike(self, name: str) -> str | None:
        """Returns a known name that differs from `name` only in case or by a parent folder, or None."""
        folded = name.casefold()
        names = (*self._others, *self._names)
        same = next((known for known in names if known.casefold() == folded), None)
        return same or next(
            (known for known in names if known.casefold().endswith(f"/{folded}")), None
        )


def inside(name: str) -> str:
    """Returns the name of a file inside a folder unchanged, after a check.

    Raises:
        ValueError: The name leads out of the folder, is absolute, is a URL, or means something else on another system.

    Example:
        >>> inside("a b/c#1.png")
        'a b/c#1.png'
    """
    if re.search(OUTSIDE, name):
        raise ValueError(f"{shown(name)} is not a path inside the folder")
    return name
