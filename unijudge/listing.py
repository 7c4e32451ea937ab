"""The files in a folder that somebody else made: what is hidden, or was left there by a system, is none of them."""

from fnmatch import fnmatchcase
from pathlib import Path

from unijudge.files import names_in
from unijudge.names import is_side_file


def foreign_files(folder: Path, pattern: str = "*") -> list[Path]:
    """What lies directly in a folder, in order of name; none where there is no such folder.

    Args:
        folder: On a disk or in a store.
        pattern: Of the names, as of a shell; capitals and small letters are the same.

    Raises:
        DataError: It cannot be listed.
    """
    names = sorted(name for name in names_in(folder) if name and not is_side_file(name))
    return [folder / name for name in names if fnmatchcase(name.lower(), pattern.lower())]


def all_files(folder: Path, ending: str | None = None) -> list[Path]:
    """The files in a folder and its subfolders, or those with an ending, in order of name.

    Args:
        folder: On a disk or in a store.
        ending: As in `.json`, in small letters; of any for None.
    """
    found = []
    for path in sorted(folder.rglob("*")):
        hidden = any(is_side_file(part) for part in path.relative_to(folder).parts)
        if ending in (None, path.suffix.lower()) and not hidden and path.is_file():
            found.append(path)
    return found
