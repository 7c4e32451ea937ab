"""All writes of the project: a file is complete or absent.

On a disk, `publishing` writes a draft beside the target, calls fsync, renames the draft, and calls fsync on the folder.
For an object store, it writes a local draft and uploads the draft as one object. So no reader ever sees half a file,
even if the writer is killed. `unijudge/storage/leases.py` ensures that a folder has only one writer.
"""

import contextlib
import errno
import hashlib
import logging
import os
import re
import shutil
import stat
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from unijudge.errors import DataError
from unijudge.storage.access_errors import CURE_OF_ERRNO, missing, unreadable, unwritable
from unijudge.storage.leases import check_held
from unijudge.storage.locations import check_regular, is_local
from unijudge.storage.manifests import mistaken
from unijudge.storage.names import is_left_behind
from unijudge.storage.stores import again
from unijudge.storage.texts import as_text

DRAFT_SUFFIX = ".unijudge-draft"
"""The suffix of a draft's name. A file with this suffix may be removed or overwritten."""

logger = logging.getLogger(__name__)

NO_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.ENOSYS})
"""Error numbers of file systems that cannot synchronise a folder."""

IN_TEMPORARY = CURE_OF_ERRNO | {
    errno.ENOSPC: "Free space there, or set TMPDIR to a folder of a larger disk"
}
"""Error number → its cure, while a local draft is written for a store."""

M = TypeVar("M", bound=BaseModel)


@contextlib.contextmanager
def publishing(path: Path, *, rivals: bool = False) -> Iterator[Path]:
    """Yields the path of a draft to write. When the block ends without an error, the draft atomically becomes `path`.

    On an error the draft is removed and `path` is unchanged. There is one exception: if the disk fails only in the last
    step (fsync of the folder), `path` is already the complete new file. A draft that a killed process left is
    overwritten by the next attempt. The draft of an object in a store lies on the local disk.

    Args:
        path: The file to write.
        rivals: Whether several processes may write `path` at the same time. Each process then has a separate draft.

    Raises:
        DataError: The disk or the store refused (full, read-only, no permission). The message names path and reason.
    """
    if not is_local(path):
        with _uploading(path) as draft:
            yield draft
        return
    draft = path.with_name(path.name + (f".{uuid.uuid4().hex}" if rivals else "") + DRAFT_SUFFIX)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Left by a killed process; or a link, and its target would be overwritten.
        draft.unlink(missing_ok=True)
        yield draft
        _sync(draft)
        draft.replace(path)
        _sync(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise unwritable(path, error) from error
        raise


@contextlib.contextmanager
def publishing_folder(path: Path) -> Iterator[Path]:
    """Yields a draft folder to fill. When the block ends without an error, the draft atomically becomes `path`.

    An object store cannot publish many objects atomically, so the files are uploaded one by one. The `.json` files
    directly in the folder are uploaded last, because a folder without its manifest is not complete.

    Raises:
        DataError: The disk or the store refused, or `path` exists and is not empty.
    """
    if not is_local(path):
        with tempfile.TemporaryDirectory(prefix="unijudge-") as name:
            yield Path(name)
            files = [file for file in sorted(Path(name).rglob("*")) if file.is_file()]
            for file in sorted(
                files, key=lambda file: file.suffix == ".json" and file.parent == Path(name)
            ):
                _send(file, path / file.relative_to(name).as_posix())
        return
    if path.is_mount():  # a folder cannot replace a mount point
        raise unwritable(path, OSError(errno.EBUSY, os.strerror(errno.EBUSY)))
    draft = path.with_name(path.name + DRAFT_SUFFIX)
    shutil.rmtree(draft, ignore_errors=True)
    try:
        draft.mkdir(parents=True)
        yield draft
        for written in [*draft.rglob("*"), draft]:
            _open_to_others(written, draft)
            _sync(written)
        # Empty, apart from files that an operating system left there.
        if path.is_dir() and not names_in(path):
            shutil.rmtree(path)
        draft.replace(path)
        _sync(path.parent)
    except BaseException as error:
        shutil.rmtree(draft, ignore_errors=True)
        if isinstance(error, OSError):
            raise unwritable(path, error) from error
        raise


@contextlib.contextmanager
def scratch(path: Path) -> Iterator[Path]:
    """Yields the path of a temporary file that is removed after the block.

    The file lies beside `path`, or in the machine's temporary folder if `path` is in an object store. A file that a
    killed process left there is removed first.

    Raises:
        DataError: The disk refused.
    """
    if not is_local(path):
        with tempfile.TemporaryDirectory(prefix="unijudge-") as name:
            yield Path(name) / path.name
        return
    draft = path.with_name(f".{path.name}{DRAFT_SUFFIX}")
    try:
        draft.parent.mkdir(parents=True, exist_ok=True)
        draft.unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(path, error) from error
    try:
        yield draft
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)


def publish_text(path: Path, text: str) -> None:
    """Publishes a small UTF-8 text file."""
    with publishing(path) as draft:
        draft.write_text(text, encoding="utf-8")


def publish_json(path: Path, model: BaseModel) -> None:
    """Publishes a pydantic model as indented JSON."""
    publish_text(path, model.model_dump_json(indent=2) + "\n")


def read_text(path: Path) -> str:
    """Reads a small text file that a person may have written; see `unijudge/storage/texts.py`.

    Raises:
        DataError: The file cannot be read, or is not UTF-8.
    """
    try:
        check_regular(path)
        data = again(path, path.read_bytes)
    except Exception as error:  # each store has its own family of errors
        raise unreadable(path, error) from error
    return as_text(path, data)


def read_json(path: Path, kind: type[M]) -> M:
    """Reads a file that `publish_json` wrote.

    Raises:
        DataError: The file does not exist, or does not hold a valid `kind`. If the folder is of another kind, the
            message says so.
    """
    try:
        check_regular(path)
        return kind.model_validate_json(as_text(path, again(path, path.read_bytes)))
    except DataError:
        raise
    except FileNotFoundError as error:
        raise _absent(path, error) from error
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"]))
        reason = f"{where}: {fault['msg']}" if where else fault["msg"]
        raise DataError(
            f"{path}: no {in_words(kind)} of this version ({reason}). It was written by another program or version, or "
            "the path is wrong"
        ) from error
    except Exception as error:  # each store has its own family of errors
        raise unreadable(path, error) from error


def _absent(path: Path, error: FileNotFoundError) -> DataError:
    """Returns the error for a missing file. If its folder is of another kind, the message says so."""
    try:
        names = names_in(path.parent)
    except DataError:  # the store does not answer
        return missing(path, error)
    if found := mistaken(path.name, names):
        return DataError(f"{path.parent}: {found}. Check the path")
    return missing(path, error)


def in_words(kind: type[BaseModel]) -> str:
    """Returns the name of a model class for a message: its title if it has one, else its class name in words.

    Example:
        >>> class ScoreManifest(BaseModel):
        ...     k: int
        >>> in_words(ScoreManifest)
        'score manifest'
    """
    return (
        kind.model_config.get("title") or re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kind.__name__).lower()
    )


def names_in(folder: Path) -> set[str]:
    """Returns the names in a folder, by one listing. A folder that does not exist has no names.

    Files that an operating system left there are not counted.

    Raises:
        DataError: The folder cannot be listed.
    """
    try:
        if is_local(folder):
            return {path.name for path in folder.iterdir() if not is_left_behind(path.name)}
        store: Any = folder
        listed: list[str] = again(folder, lambda: store.fs.ls(store.path, detail=False))
        names = {name.rpartition("/")[2] for name in listed}
        # A store's web console makes a folder by an empty object with the folder's own name: skip it.
        return {name for name in names if name and not is_left_behind(name)}
    except FileNotFoundError:
        return set()
    except Exception as error:  # each store has its own family of errors
        raise unreadable(folder, error) from error


def file_sha256(path: Path) -> str:
    """Returns the sha256 of a file's bytes, in hex.

    Raises:
        DataError: The file cannot be read.
    """
    try:
        check_regular(path)
        return again(path, lambda: _digest(path))
    except FileNotFoundError as error:
        raise _absent(path, error) from error
    except Exception as error:  # each store has its own family of errors
        raise unreadable(path, error) from error


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


LOADED = {".safetensors", ".bin", ".json", ".jinja", ".model", ".txt"}
"""Suffixes of the files that define a model: weights, configurations, tokenizer and template. A model card, or a file
that a file manager left, does not belong to the model."""


def folder_sha256(folder: Path) -> str:
    """Returns a hash of a model folder: sixteen hex digits over the names and bytes of its files, sorted by name.

    Files in subfolders are not included.

    Raises:
        DataError: A file cannot be read.
    """
    digest = hashlib.sha256()
    for path in sorted(
        path for path in folder.iterdir() if path.suffix in LOADED and path.name[0] != "."
    ):
        digest.update(f"{path.name}\0{file_sha256(path)}\n".encode())
    return digest.hexdigest()[:16]


@contextlib.contextmanager
def _uploading(path: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="unijudge-") as name:
        draft = Path(name) / path.name
        try:
            yield draft
        except OSError as error:
            raise unwritable(draft, error, IN_TEMPORARY) from error
        _send(draft, path)


def _send(draft: Path, path: Any) -> None:
    """Uploads a draft as one object, so that the object is complete or absent.

    Raises:
        FolderBusy: The lease of the output folder was lost.
    """
    check_held(path)
    try:
        again(path, lambda: path.fs.put_file(str(draft), path.path))
    except Exception as error:  # each store has its own family of errors
        raise unwritable(path, error) from error


def _open_to_others(path: Path, folder: Path) -> None:
    """Gives a file the read permissions of its folder: some libraries write files that only their own user can read."""
    with contextlib.suppress(PermissionError):  # a disk without permissions
        mode = stat.S_IMODE(path.stat().st_mode)
        if path.is_file() and (wider := mode | (folder.stat().st_mode & 0o444)) != mode:
            path.chmod(wider)


def remove_folder(folder: Path) -> None:
    """Removes a folder that is no longer needed. On a network disk, files that another process still reads remain."""
    try:
        shutil.rmtree(folder)
    except OSError as error:
        logger.warning("%s: not removed (%s). You can delete this folder", folder, error.strerror)


def _sync(path: Path) -> None:
    """Makes a file's bytes, or a folder's entries, survive a power cut. Not every disk can do so for folders."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems and shared folders cannot synchronise folders. The new entry exists nevertheless.
        if error.errno not in NO_SYNC or not path.is_dir():
            raise
    finally:
        os.close(descriptor)
