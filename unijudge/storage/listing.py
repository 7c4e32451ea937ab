"""Listings of a user's folder, without hidden files and without files that an operating system left there."""

from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from unijudge.storage.access_errors import unreadable
from unijudge.storage.files import names_in
from unijudge.storage.locations import is_local
from unijudge.storage.names import is_side_file
from unijudge.storage.stores import again, is_file, is_folder


def foreign_files(folder: Path, pattern: str = "*") -> list[Path]:
    """Returns the files and folders directly in a folder, sorted by name. A folder that does not exist has no files.

    Args:
        folder: A folder on a disk or in a store.
        pattern: A shell pattern for the names, which ignores case.

    Raises:
        DataError: The folder cannot be listed.
    """
    names = sorted(name for name in names_in(folder) if name and not is_side_file(name))
    return [folder / name for name in names if fnmatchcase(name.lower(), pattern.lower())]


def matching(folder: Path, pattern: str) -> list[Path]:
    """Returns the paths below a folder that match a shell pattern, sorted by name.

    Args:
        folder: A folder on a disk or in a store.
        pattern: A relative shell pattern, which may name folders too, as in `*/*.zip`.

    Raises:
        DataError: The folder cannot be listed.
    """
    try:
        found = again(folder, lambda: list(folder.glob(pattern)))
    except FileNotFoundError:
        return []
    except Exception as error:  # each store has its own family of errors
        raise unreadable(folder, error) from error
    return sorted(path for path in found if not is_side_file(path.name))


def all_files(folder: Path, *endings: str) -> list[Path]:
    """Returns the files in a folder and its subfolders, sorted by name. Links are followed.

    Args:
        folder: A folder on a disk or in a store.
        endings: Suffixes of the wanted files, in lower case, such as `.json`. Without a suffix, all files.

    Raises:
        DataError: A folder cannot be listed.
    """
    below = _below(folder, set()) if is_local(folder) else _stored(folder)
    return sorted(path for path in below if not endings or path.suffix.lower() in endings)


def _below(folder: Path, seen: set[Path]) -> Iterator[Path]:
    """Yields the files below a folder. A folder is visited once, however many links lead there."""
    there = folder.resolve()
    if there in seen:
        return
    seen.add(there)
    for path in foreign_files(folder):
        if is_folder(path):
            yield from _below(path, seen)
        elif is_file(path):
            yield path


def _stored(folder: Any) -> Iterator[Path]:
    try:
        found: list[str] = again(folder, lambda: folder.fs.find(folder.path))
    except FileNotFoundError:
        return
    except Exception as error:  # each store has its own family of errors
        raise unreadable(folder, error) from error
    for name in found:
        below = name[len(folder.path.rstrip("/")) :].strip("/")
        if not any(map(is_side_file, below.split("/"))):
            yield folder / below
