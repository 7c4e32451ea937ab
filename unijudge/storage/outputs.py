"""The checks of an output path before a command writes: a command only ever overwrites its own kind of output.

A page or a table replaces an older file of the same kind. A folder may already hold the files that the command writes.
If a result exists already (a selection, an export, a dataset, a model, another evaluation), the command refuses before
it starts. With `--overwrite`, a result of the command's own kind is replaced.
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

OR_ELSE = "Give another output, or replace this one with --overwrite"

M = TypeVar("M", bound=BaseModel)


def taken(path: Path) -> DataError:
    """Returns the error for an output that exists already."""
    held = "" if is_file(path) else f" (it holds {listed(names_in(path))})"
    return DataError(f"{path}: exists already{held}. {OR_ELSE}")


def check_absent(path: Path) -> None:
    """Refuses an output that exists already. An empty folder does not count as an output.

    Raises:
        DataError: The output exists.
    """
    if is_file(path) or names_in(path):
        raise taken(path)


@contextlib.contextmanager
def replacing(
    path: Path, is_own: Callable[[Path], bool], what: str, *, overwrite: bool
) -> Iterator[Path]:
    """Surrounds a command that writes `path`. With `overwrite`, the old output is removed once the new one is complete.

    Until then the old output lies beside `path`. If the command fails, the old output is restored. After a kill, the
    next run of the command restores it. The block holds the lease of the output, so that two commands cannot move each
    other's results.

    Yields:
        The path to write: `path`, or its target if `path` is a symbolic link. The link is kept.

    Args:
        path: A file or a folder.
        is_own: A function that tells whether an existing output is of the command's own kind.
        what: The name of that kind, in words.
        overwrite: Whether to replace an existing output.

    Raises:
        DataError: The path is taken, and may not be replaced.
        FolderBusy: Another process writes there.
    """
    try:
        place = path.resolve() if is_local(path) else path
    except (OSError, RuntimeError) as error:  # a loop of links
        raise unreadable(path, error) from error
    with lease(place), _moved_aside(place, is_own, what, overwrite=overwrite):
        yield place


@contextlib.contextmanager
def _moved_aside(
    path: Path, is_own: Callable[[Path], bool], what: str, *, overwrite: bool
) -> Iterator[None]:
    aside = path.with_name(f".{path.name}.replaced{DRAFT_SUFFIX}")
    if is_local(path) and aside.exists() and not exists(path):
        aside.replace(path)
    if not overwrite or not exists(path) or (is_folder(path) and not names_in(path)):
        yield
        return
    if not is_local(path):
        raise DataError(
            f"{path}: exists already, and --overwrite does not work in an object store. Delete it there"
        )
    if not is_own(path):
        raise DataError(
            f"{path}: exists already, but is not this command's output ({what}). Give another output, or move this away"
        )
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


def is_folder_of(
    manifest: str, kind: type[M], owns: Callable[[M, str], bool]
) -> Callable[[Path], bool]:
    """Returns a check for `replacing`: a folder must hold a manifest, and no files that do not belong to the output.

    Args:
        manifest: The name of the manifest.
        kind: The class of the manifest.
        owns: A function that tells whether a file belongs to the output, by the manifest and the file's relative name.
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
    """Refuses a folder in which a person put other files, because `--overwrite` would delete these files too.

    Raises:
        DataError: The folder holds other files; the message names the first few.
    """
    found = [path for path in folder.rglob("*") if path.is_symlink() or is_file(path)]
    files = [path.relative_to(folder).as_posix() for path in found if not is_left_behind(path.name)]
    if strange := {name for name in files if not owns(name.removesuffix(DRAFT_SUFFIX))}:
        raise DataError(
            f"{folder}: holds {listed(strange)}, which --overwrite would delete too. Move these files away, or give "
            "another output"
        )


def _remove(path: Path) -> None:
    if is_folder(path) and not path.is_symlink():
        remove_folder(path)
    else:
        path.unlink(missing_ok=True)


def check_file(path: Path, is_own: Callable[[bytes], bool], what: str) -> None:
    """Refuses to replace a file that is not of the command's own kind.

    Args:
        path: The file to be written.
        is_own: A function that tells by a file's bytes whether the file is of that kind.
        what: The name of that kind, in words.

    Raises:
        DataError: The file is of another kind, or cannot be read.
    """
    if not exists(path):
        return
    if is_folder(path):
        raise DataError(f"{path}: is a folder. Give the name of a file")
    try:
        own = is_own(again(path, path.read_bytes))
    except Exception as error:  # each store has its own family of errors
        raise unreadable(path, error) from error
    if not own:
        raise DataError(
            f"{path}: exists already, but is not this command's output ({what}). Give another file, or move this away"
        )


def is_json_of(kind: type[BaseModel]) -> Callable[[bytes], bool]:
    """Returns a check for `check_file`: whether bytes are the JSON of a model class."""

    def fits(data: bytes) -> bool:
        try:
            kind.model_validate_json(data)
        except ValidationError:
            return False
        return True

    return fits


def check_folder(folder: Path, own: Collection[str] = ()) -> None:
    """Refuses to write into a folder that holds other files.

    Args:
        folder: The output folder, which need not exist.
        own: Names that the command writes there; without a name, the folder must be empty. Drafts of these files, which
            a killed run left, are allowed too.

    Raises:
        DataError: The path is a file, or the folder holds other files; the message names them.
    """
    if is_file(folder):
        raise DataError(f"{folder}: is a file. Give a folder")
    if strange := {name for name in names_in(folder) if name.removesuffix(DRAFT_SUFFIX) not in own}:
        raise DataError(
            f"{folder}: holds {listed(strange)} already, which would be mixed with the new files. Give another folder, "
            "or move the old files away"
        )
