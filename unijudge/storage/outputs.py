"""What may lie where an output is to go: no command replaces what it did not make.

A page or a table that is drawn anew replaces a file of its own kind; a folder may hold what the command itself writes.
A result that exists already (a selection, an export, a dataset, a model, an evaluation of something else) is refused
before the work begins, unless `--overwrite` is given: then one of the command's own kind is replaced.
"""

import contextlib
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from unijudge.errors import DataError
from unijudge.shown import listed
from unijudge.storage.access_errors import unreadable, unwritable
from unijudge.storage.files import DRAFT_SUFFIX, names_in, read_json, remove_folder
from unijudge.storage.leases import lease
from unijudge.storage.locations import is_local
from unijudge.storage.names import is_left_behind
from unijudge.storage.stores import again, exists, is_file, is_folder

OR_ELSE = "give another output, or replace this one with --overwrite"

M = TypeVar("M", bound=BaseModel)


def taken(path: Path) -> DataError:
    """The refusal of an output that exists already."""
    held = "" if is_file(path) else f" (it holds {listed(names_in(path))})"
    return DataError(f"{path}: exists already{held}; {OR_ELSE}")


def check_absent(path: Path) -> None:
    """Refuses an output that exists already; an empty folder is none.

    Raises:
        DataError: It does.
    """
    if is_file(path) or names_in(path):
        raise taken(path)


@contextlib.contextmanager
def replacing(path: Path, is_own: Callable[[Path], bool], what: str, *, overwrite: bool) -> Iterator[Path]:
    """Around a command that writes `path`: with `overwrite` an older one goes when, and only if, the new one is whole.

    Until then it lies beside; where the command fails, it comes back, also after a kill, when the command is run again.
    The block holds the lease of the output: two commands cannot move each other's results.

    Yields:
        Where to write: `path`, or what it names where it is a symbolic link, which stays.

    Args:
        path: A file or a folder.
        is_own: Whether what lies there is of the command's own kind.
        what: That kind, in words.
        overwrite: Whether to replace it.

    Raises:
        DataError: Something is there, and may not be replaced.
        FolderBusy: Another process writes there.
    """
    try:
        place = path.resolve() if is_local(path) else path
    except (OSError, RuntimeError) as error:  # a loop of links
        raise unreadable(path, error) from error
    with lease(place), _moved_aside(place, is_own, what, overwrite=overwrite):
        yield place


@contextlib.contextmanager
def _moved_aside(path: Path, is_own: Callable[[Path], bool], what: str, *, overwrite: bool) -> Iterator[None]:
    aside = path.with_name(f".{path.name}.replaced{DRAFT_SUFFIX}")
    if is_local(path) and aside.exists() and not exists(path):
        aside.replace(path)
    if not overwrite or not exists(path) or (is_folder(path) and not names_in(path)):
        yield
        return
    if not is_local(path):
        raise DataError(f"{path}: exists already; --overwrite replaces nothing in an object store: delete it there")
    if not is_own(path):
        raise DataError(f"{path}: exists already, and is no {what}; give another output, or move this one away")
    _remove(aside)
    try:
        path.replace(aside)
    except OSError as error:
        raise unwritable(path, error) from error
    try:
        yield
    except BaseException:
        if not exists(path):
            aside.replace(path)
        raise
    _remove(aside)


def is_folder_of(manifest: str, kind: type[M], owns: Callable[[M, str], bool]) -> Callable[[Path], bool]:
    """Whether a folder is one of ours, for `replacing`: it holds a manifest, and nothing beside what belongs to it.

    Args:
        manifest: The name of the manifest.
        kind: What it must be.
        owns: Whether a file of this name, relative to the folder, belongs to it.
    """

    def fits(folder: Path) -> bool:
        try:
            found = read_json(folder / manifest, kind)
        except DataError:
            return False
        check_only(folder, lambda name: name == manifest or owns(found, name))
        return True

    return fits


def check_only(folder: Path, owns: Callable[[str], bool]) -> None:
    """Refuses a folder in which somebody put files of their own: they would go with it.

    Raises:
        DataError: One is there; the first few are named.
    """
    found = [path for path in folder.rglob("*") if path.is_symlink() or is_file(path)]
    files = [path.relative_to(folder).as_posix() for path in found if not is_left_behind(path.name)]
    if strange := {name for name in files if not owns(name.removesuffix(DRAFT_SUFFIX))}:
        raise DataError(
            f"{folder}: holds {listed(strange)}, which --overwrite would delete too; move that away, or give another "
            "output"
        )


def _remove(path: Path) -> None:
    if is_folder(path) and not path.is_symlink():
        remove_folder(path)
    else:
        path.unlink(missing_ok=True)


def check_file(path: Path, is_own: Callable[[bytes], bool], what: str) -> None:
    """Refuses to replace a file that is not of the command's own kind.

    Args:
        path: What will be written.
        is_own: Whether a file's bytes are of that kind.
        what: Its name in words.

    Raises:
        DataError: Something else is there, or it cannot be read.
    """
    if not exists(path):
        return
    if is_folder(path):
        raise DataError(f"{path}: is a folder; give the name of a file")
    try:
        own = is_own(again(path, path.read_bytes))
    except Exception as error:  # each store has its own family of errors
        raise unreadable(path, error) from error
    if not own:
        raise DataError(f"{path}: is there already, and is no {what}; give another file, or move this one away")


def is_json_of(kind: type[BaseModel]) -> Callable[[bytes], bool]:
    """Whether bytes are the JSON of a model: for `check_file`."""

    def fits(data: bytes) -> bool:
        try:
            kind.model_validate_json(data)
        except ValidationError:
            return False
        return True

    return fits


def check_folder(folder: Path, own: Collection[str] = ()) -> None:
    """Refuses to write into a folder that holds something else than files of these names.

    Args:
        folder: Where the files go; it need not exist.
        own: What the command writes there; none: the folder must be empty. A draft of a killed run is its own too.

    Raises:
        DataError: It is a file, or holds something else: that is named.
    """
    if is_file(folder):
        raise DataError(f"{folder}: is a file; give a folder")
    if strange := {name for name in names_in(folder) if name.removesuffix(DRAFT_SUFFIX) not in own}:
        raise DataError(
            f"{folder}: holds {listed(strange)} already, which would be mixed with what is written; give another "
            "folder, or move that away"
        )
