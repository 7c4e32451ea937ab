"""One writer for an output folder: a second one is refused, and a killed one lets go.

On a disk the lease is a lock that the kernel frees when its process dies. An object store has no locks: there it is an
object that is created only where none is, renewed while its holder lives, and void when it was not for a minute.
"""

import contextlib
import fcntl
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from unijudge.errors import FolderBusy
from unijudge.locations import is_local
from unijudge.refused import unwritable

logger = logging.getLogger(__name__)

RENEW_EVERY_S = 15
VOID_AFTER_S = 60
"""How long an unrenewed lease on an object store keeps others out."""


@contextlib.contextmanager
def lease(path: Path) -> Iterator[threading.Event]:
    """Holds an output path for this process. Freed when the block or the process ends.

    Yields an event that is set if the lease is lost, which only one in an object store can be: its holder stops then.

    The lock lies beside the output, so that it works for a folder that is published all at once too.

    Raises:
        FolderBusy: Another live process holds it; it is named.
        DataError: The lock cannot be written.
    """
    if is_local(path):
        with _locked(path):
            yield threading.Event()
    else:
        with _object(path) as lost:
            yield lost


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    path = path.resolve()
    lock = path.with_name(f".{path.name}.lease")
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        holder = lock.open("a+")
    except OSError as error:
        raise unwritable(path, error) from error
    with holder:
        try:
            fcntl.flock(holder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder.seek(0)
            raise _busy(path, f"process {holder.read().strip() or 'unknown'}") from error
        except OSError as error:
            raise unwritable(path, error) from error
        holder.truncate(0)
        holder.write(str(os.getpid()))
        holder.flush()
        yield


class _Claim(BaseModel):
    """The lease object."""

    holder: str
    """For people: machine and process."""
    token: str
    until: float
    """Seconds since 1970, by the holder's clock."""


@contextlib.contextmanager
def _object(path: Any) -> Iterator[threading.Event]:
    lock = path.with_name(f".{path.name}.lease")
    token = uuid.uuid4().hex
    try:
        try:
            _claim(lock, token, "create")
        except FileExistsError:
            other = _found(lock)
            if other.until > time.time():
                raise _busy(path, other.holder) from None
            _claim(lock, token, "overwrite")
            time.sleep(1)  # others may have found it void too: the last word counts
            if not _holds(lock, token):
                raise _busy(path, "another process") from None
    except FolderBusy:
        raise
    except Exception as error:  # each store has its own family of errors
        raise unwritable(path, error) from error
    try:
        with _renewed(lock, token) as lost:
            yield lost
    finally:
        with contextlib.suppress(Exception):  # it is void in a minute; what was written is written
            if _holds(lock, token):
                lock.fs.rm_file(lock.path)


@contextlib.contextmanager
def _renewed(lock: Any, token: str) -> Iterator[threading.Event]:
    done, lost = threading.Event(), threading.Event()

    def renew() -> None:
        while not done.wait(RENEW_EVERY_S):
            try:
                if not _holds(lock, token):  # this process slept for a minute, and another took it over
                    logger.error("%s: lost to another process", lock)
                    lost.set()
                    return
                _claim(lock, token, "overwrite")
            except Exception as error:  # noqa: BLE001  the next attempt may reach the store
                logger.warning("%s: not renewed: %s", lock, error)

    renewing = threading.Thread(target=renew, name="lease", daemon=True)
    renewing.start()
    try:
        yield lost
    finally:
        done.set()
        renewing.join()


def _claim(lock: Any, token: str, mode: str) -> None:
    holder = f"process {os.getpid()} on {socket.gethostname()}"
    made = _Claim(holder=holder, token=token, until=time.time() + VOID_AFTER_S)
    lock.fs.pipe_file(lock.path, made.model_dump_json().encode(), mode=mode)


def _found(lock: Any) -> _Claim:
    """In one request: between two its holder may renew it."""
    return _Claim.model_validate_json(lock.fs.cat_file(lock.path))


def _holds(lock: Any, token: str) -> bool:
    """Whether the lease is still this one; a holder that took it over may have finished, and it is gone."""
    try:
        return _found(lock).token == token
    except FileNotFoundError:
        return False


def _busy(path: Path, holder: str) -> FolderBusy:
    return FolderBusy(f"{path}: {holder} is writing there; wait for it, or give another output")
