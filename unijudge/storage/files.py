"""Every write of the project goes through here: a file is complete or absent.

On a disk `publishing` writes beside the target, then fsync, rename, fsync of the folder; on an object store it writes a
local draft and sends it as one object. Either way a reader, or a process that was killed, never sees half a file. One
writer for a folder is what `unijudge/storage/leases.py` is for.
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
from unijudge.storage.names import is_left_behind
from unijudge.storage.stores import again
from unijudge.storage.texts import as_text

DRAFT_SUFFIX = ".unijudge-draft"
"""What nobody else calls a file of theirs: one with it is removed or written over."""

logger = logging.getLogger(__name__)

NO_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.ENOSYS})
"""What file systems answer that cannot synchronise a folder."""

IN_TEMPORARY = CURE_OF_ERRNO | {errno.ENOSPC: "Free space there, or set TMPDIR to a folder of a larger disk"}
"""What helps where a file is made that a store will get."""

M = TypeVar("M", bound=BaseModel)


@contextlib.contextmanager
def publishing(path: Path, *, rivals: bool = False) -> Iterator[Path]:
    """Yields a draft path to write to; leaving the block without an error makes it `path`, all at once.

    On an error the draft is removed and `path` is as it was; but for a disk that fails in the very last step, to make
    the new name outlive a power cut: then `path` is whole. A draft left by a killed process is overwritten by the next
    attempt; with `rivals`, where several may write the same path at once, each has a draft of its own. The draft of an
    object lies on the local disk.

    Raises:
        DataError: The disk or the store refused (full, read-only, no permission); path and reason are named.
    """
    if not is_local(path):
        with _uploading(path) as draft:
            yield draft
        return
    draft = path.with_name(path.name + (f".{uuid.uuid4().hex}" if rivals else "") + DRAFT_SUFFIX)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.unlink(missing_ok=True)  # of a killed process; or a link, through which something else would be written
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
    """Yields a draft folder to fill; leaving the block without an error makes it `path`, all at once.

    An object store has no such thing for many objects: they are sent one by one, the folder's own `.json` files last,
    since a manifest is what makes a folder whole.

    Raises:
        DataError: The disk or the store refused, or `path` exists and is not empty.
    """
    if not is_local(path):
        with tempfile.TemporaryDirectory(prefix="unijudge-") as name:
            yield Path(name)
            files = [file for file in sorted(Path(name).rglob("*")) if file.is_file()]
            for file in sorted(files, key=lambda file: file.suffix == ".json" and file.parent == Path(name)):
                _send(file, path / file.relative_to(name).as_posix())
        return
    if path.is_mount():  # nothing can be moved to its place
        raise unwritable(path, OSError(errno.EBUSY, os.strerror(errno.EBUSY)))
    draft = path.with_name(path.name + DRAFT_SUFFIX)
    shutil.rmtree(draft, ignore_errors=True)
    try:
        draft.mkdir(parents=True)
        yield draft
        for written in [*draft.rglob("*"), draft]:
            _open_to_others(written, draft)
            _sync(written)
        if path.is_dir() and not names_in(path):  # but for what a system left there, it is empty
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
    """Yields a path for a temporary file, which is gone after the block; one left by a killed process is removed first.

    It lies beside `path`; where that is in an object store, among the machine's temporary files.

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
    """Reads a small text that people may have written; see `unijudge/storage/texts.py`.

    Raises:
        DataError: It cannot be read, or is no UTF-8.
    """
    try:
        check_regular(path)
        data = again(path, path.read_bytes)
    except Exception as error:  # each store has its own family of errors
        raise unreadable(path, error) from error
    return as_text(path, data)


def read_json(path: Path, kind: type[M]) -> M:
    """Reads what `publish_json` wrote.

    Raises:
        DataError: No such file, or it is no `kind`.
    """
    try:
        check_regular(path)
        return kind.model_validate_json(as_text(path, again(path, path.read_bytes)))
    except DataError:
        raise
    except FileNotFoundError as error:
        raise missing(path, error) from error
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"]))
        reason = f"{where}: {fault['msg']}" if where else fault["msg"]
        raise DataError(
            f"{path}: no {in_words(kind)} of this version ({reason}); it was written by another program or version, or "
            "is another file than was meant"
        ) from error
    except Exception as error:  # each store has its own family of errors
        raise unreadable(path, error) from error


def in_words(kind: type[BaseModel]) -> str:
    """What a model is called in a message: its title, where it has one, or its name.

    Example:
        >>> class ScoreManifest(BaseModel):
        ...     k: int
        >>> in_words(ScoreManifest)
        'score manifest'
    """
    return kind.model_config.get("title") or re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kind.__name__).lower()


def names_in(folder: Path) -> set[str]:
    """The names in a folder, by one listing, without what systems left there; none where there is no such folder.

    Raises:
        DataError: It cannot be listed.
    """
    try:
        if is_local(folder):
            return {path.name for path in folder.iterdir() if not is_left_behind(path.name)}
        store: Any = folder
        listed: list[str] = again(folder, lambda: store.fs.ls(store.path, detail=False))
        names = {name.rpartition("/")[2] for name in listed}
        # A console makes a folder by an object that is called like it: one without a name in the folder.
        return {name for name in names if name and not is_left_behind(name)}
    except FileNotFoundError:
        return set()
    except Exception as error:  # each store has its own family of errors
        raise unreadable(folder, error) from error


def file_sha256(path: Path) -> str:
    """The sha256 of a file's bytes, in hex.

    Raises:
        DataError: The file cannot be read.
    """
    try:
        check_regular(path)
        return again(path, lambda: _digest(path))
    except Exception as error:  # each store has its own family of errors
        raise unreadable(path, error) from error


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


LOADED = {".safetensors", ".bin", ".json", ".jinja", ".model", ".txt"}
"""Endings of the files that make a model what it is: weights, configurations, tokenizer and template. A card, or what a
file manager leaves, is none."""


def folder_sha256(folder: Path) -> str:
    """Sixteen hex digits over the names and bytes of a model's files (not of its subfolders), in order of name.

    Raises:
        DataError: A file cannot be read.
    """
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.suffix in LOADED and path.name[0] != "."):
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
    """One object, whole or absent.

    Raises:
        FolderBusy: The lease of its folder was lost.
    """
    check_held(path)
    try:
        again(path, lambda: path.fs.put_file(str(draft), path.path))
    except Exception as error:  # each store has its own family of errors
        raise unwritable(path, error) from error


def _open_to_others(path: Path, folder: Path) -> None:
    """Lets whoever may look into a folder read a file of it: libraries write some for their own user alone."""
    with contextlib.suppress(PermissionError):  # a disk without modes
        mode = stat.S_IMODE(path.stat().st_mode)
        if path.is_file() and (wider := mode | (folder.stat().st_mode & 0o444)) != mode:
            path.chmod(wider)


def remove_folder(folder: Path) -> None:
    """Removes a folder that nobody needs any more; what another process still reads on a network disk stays."""
    try:
        shutil.rmtree(folder)
    except OSError as error:
        logger.warning("%s: not removed (%s); nothing needs it any more", folder, error.strerror)


def _sync(path: Path) -> None:
    """Makes a file's bytes, or a folder's entries, survive a power cut; for folders, not every disk can."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems and shared folders have no such call for folders: the entry is there nevertheless.
        if error.errno not in NO_SYNC or not path.is_dir():
            raise
    finally:
        os.close(descriptor)
