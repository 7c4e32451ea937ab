"""Every write of the project goes through here: a file is complete or absent, and a folder has one writer.

`publishing` writes beside the target, then fsync, rename, fsync of the folder: a reader, or a process that was killed,
never sees half a file. `lease` keeps a second writer out and is freed by the kernel when its process dies. Local and
network file systems with atomic rename only; object stores are not handled yet.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from unijudge.errors import DataError, FolderBusy

DRAFT_SUFFIX = ".draft"

M = TypeVar("M", bound=BaseModel)


@contextlib.contextmanager
def publishing(path: Path, *, rivals: bool = False) -> Iterator[Path]:
    """Yields a draft path to write to; leaving the block without an error makes it `path`, all at once.

    On an error the draft is removed and `path` is as it was. A draft left by a killed process is overwritten by the
    next attempt; with `rivals`, where several may write the same path at once, each has a draft of its own.

    Raises:
        DataError: The disk refused (full, read-only, no permission); the path and the system's reason are named.
    """
    draft = path.with_name(path.name + (f".{uuid.uuid4().hex}" if rivals else "") + DRAFT_SUFFIX)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield draft
        _sync(draft)
        draft.replace(path)
        _sync(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise _unwritable(path, error) from error
        raise


@contextlib.contextmanager
def publishing_folder(path: Path) -> Iterator[Path]:
    """Yields a draft folder to fill; leaving the block without an error makes it `path`, all at once.

    Raises:
        DataError: The disk refused, or `path` exists and is not empty.
    """
    draft = path.with_name(path.name + DRAFT_SUFFIX)
    shutil.rmtree(draft, ignore_errors=True)
    try:
        draft.mkdir(parents=True)
        yield draft
        for written in [*draft.rglob("*"), draft]:
            _sync(written)
        draft.replace(path)
        _sync(path.parent)
    except BaseException as error:
        shutil.rmtree(draft, ignore_errors=True)
        if isinstance(error, OSError):
            raise _unwritable(path, error) from error
        raise


@contextlib.contextmanager
def scratch(path: Path) -> Iterator[Path]:
    """Yields a path for a temporary file, which is gone after the block; one left by a killed process is removed first.

    Raises:
        DataError: The disk refused.
    """
    draft = path.with_name(f".{path.name}{DRAFT_SUFFIX}")
    try:
        draft.parent.mkdir(parents=True, exist_ok=True)
        draft.unlink(missing_ok=True)
    except OSError as error:
        raise _unwritable(path, error) from error
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
    """Reads a small UTF-8 text file.

    Raises:
        DataError: It cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error


def read_json(path: Path, kind: type[M]) -> M:
    """Reads what `publish_json` wrote.

    Raises:
        DataError: No such file, or it is not a `kind`.
    """
    try:
        return kind.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; is {path.parent} the right folder, and is it complete?") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"]))
        raise DataError(
            f"{path}: not a {kind.__name__} of this version ({where}: {fault['msg']}); it was written by another "
            "program or version"
        ) from error


@contextlib.contextmanager
def lease(path: Path) -> Iterator[None]:
    """Holds an output path for this process; a second holder is refused. Freed when the block or the process ends.

    The lock is a file beside the output, so that it works for a folder that is published all at once too.

    Raises:
        FolderBusy: Another live process holds it; its process id is named.
        DataError: The lock cannot be written.
    """
    path = path.resolve()
    lock = path.with_name(f".{path.name}.lease")
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        holder = lock.open("a+")
    except OSError as error:
        raise _unwritable(path, error) from error
    with holder:
        try:
            fcntl.flock(holder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder.seek(0)
            raise FolderBusy(
                f"{path}: process {holder.read().strip() or 'unknown'} is writing there; wait for it, or give another "
                "output"
            ) from error
        except OSError as error:
            raise _unwritable(path, error) from error
        holder.truncate(0)
        holder.write(str(os.getpid()))
        holder.flush()
        yield


def file_sha256(path: Path) -> str:
    """The sha256 of a file's bytes, in hex.

    Raises:
        DataError: The file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error


def folder_sha256(folder: Path) -> str:
    """Sixteen hex digits over the names and bytes of a folder's files (not of its subfolders), in order of name.

    Raises:
        DataError: A file cannot be read.
    """
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        digest.update(f"{path.name}\0{file_sha256(path)}\n".encode())
    return digest.hexdigest()[:16]


def _sync(path: Path) -> None:
    """Makes a file's bytes, or a folder's entries, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unwritable(path: Path, error: OSError) -> DataError:
    return DataError(
        f"{path}: cannot be written ({error.strerror or error}); nothing was left there. Free space or fix the "
        "permissions, then run the same command again"
    )
