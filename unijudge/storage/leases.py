"""One writer for an output folder: a second one is refused, and a killed one lets go.

On a disk the lease is a lock that the kernel frees when its process dies. An object store has no locks: there it is an
object that is created only where none is, and renewed while its holder lives. A process that meets one looks whether it
is renewed, and takes it over after a minute in which it was not: no clock of another machine is read.
"""

import contextlib
import errno
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
from unijudge.storage.access_errors import CURE_OF_ERRNO, unwritable
from unijudge.storage.locations import is_local
from unijudge.storage.stores import again

logger = logging.getLogger(__name__)

RENEW_EVERY_S = 5
"""So long at most, somebody who wants the lease waits to see that its holder lives."""
VOID_AFTER_S = 60
"""How long somebody must have seen a lease on an object store unrenewed, to take it over."""
STOP_BEFORE_S = 10
"""How long before that its holder stops writing."""
LEASE_LOOK_EVERY_S = 1

BESIDE = CURE_OF_ERRNO | dict.fromkeys(
    (errno.EACCES, errno.EPERM, errno.EROFS),
    "It is the lock of an output, and lies beside it: fix the permissions there, or give a folder inside of that one",
)
"""What helps where a lock cannot be written."""

CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""A clock that nobody sets, and that goes on, where the system has such a one, while the machine sleeps."""

_held: dict[str, threading.Event] = {}
"""Outputs in stores whose lease this process holds, and whether it was lost."""


@contextlib.contextmanager
def lease(path: Path) -> Iterator[threading.Event]:
    """Holds an output path for this process. Freed when the block or the process ends.

    Yields an event that is set if the lease is lost, which only one in an object store can be: its holder stops then,
    and whatever it still writes there is refused (`check_held`).

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
        # Never through a symbolic link that somebody put there: what it names would be written over.
        holder = os.fdopen(os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666), "r+")
    except OSError as error:
        raise unwritable(lock, error, BESIDE) from error
    with holder:
        try:
            fcntl.flock(holder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder.seek(0)
            raise _busy(path, f"process {holder.read().strip() or 'unknown'}") from error
        except OSError as error:
            raise unwritable(path, error) from error
        holder.seek(0)
        holder.truncate()
        holder.write(str(os.getpid()))
        holder.flush()
        yield


class _Claim(BaseModel):
    """The lease object."""

    holder: str
    """For people: machine and process."""
    token: str
    renewed: int = 0
    """How often: by this it is seen that the holder lives."""


@contextlib.contextmanager
def _object(path: Any) -> Iterator[threading.Event]:
    lock = path.with_name(f".{path.name}.lease")
    try:
        holder = _Holder(lock, *_taken(path, lock))
    except FolderBusy:
        raise
    except Exception as error:  # each store has its own family of errors
        raise unwritable(path, error) from error
    _held[str(path)] = holder.lost
    try:
        with holder.renewed():
            yield holder.lost
    finally:
        _held.pop(str(path), None)
        with contextlib.suppress(Exception):  # it is void in a minute; what was written is written
            if _holds(lock, holder.token):
                again(lock, lambda: lock.fs.rm_file(lock.path))


def _taken(path: Path, lock: Any) -> tuple[str, float]:
    """Makes the lease ours: its token, and when it was written.

    Raises:
        FolderBusy: Its holder lives.
    """
    token = uuid.uuid4().hex
    while True:
        begun = _now()
        if _create(lock, token):
            return token, begun
        if _is_void(path, lock):
            break
    begun = _now()
    _claim(lock, token, 0, "overwrite")
    time.sleep(1)  # others may have found it void too: the last word counts
    if not _holds(lock, token):
        raise _busy(path, "another process")
    return token, begun


def _create(lock: Any, token: str) -> bool:
    """Writes the lease where there is none."""
    try:
        _claim(lock, token, 0, "create")
    except FileExistsError:
        return _holds(lock, token)  # where the answer to our own first try was lost
    return True


def _is_void(path: Path, lock: Any) -> bool:
    """Looks at a lease for a minute in which it is not renewed; false where it is gone meanwhile.

    Raises:
        FolderBusy: It was renewed.
    """
    try:
        first = _read(lock)
        holder = _Claim.model_validate_json(first).holder
        seen_at = _now()
        logger.info("%s: has a lease of %s; looking for up to %d s whether it lives", path, holder, VOID_AFTER_S)
        while _now() < seen_at + VOID_AFTER_S:
            time.sleep(min(LEASE_LOOK_EVERY_S, VOID_AFTER_S))
            if _read(lock) != first:
                raise _busy(path, holder)
    except FileNotFoundError:
        return False
    return True


class _Holder:
    """Renews a lease on an object store, and says when it is lost: taken over, or not renewed until it is void."""

    def __init__(self, lock: Any, token: str, written_at: float):
        self._lock, self.token, self._written_at = lock, token, written_at
        self.lost = threading.Event()
        self._done = threading.Event()

    @contextlib.contextmanager
    def renewed(self) -> Iterator[None]:
        """Renews it during the block; a second thread watches the clock, since a store may not answer for minutes."""
        threads = [threading.Thread(target=work, name="lease", daemon=True) for work in (self._renew, self._watch)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._done.set()
            threads[1].join()
            threads[0].join(RENEW_EVERY_S)

    def _renew(self) -> None:
        times = 0
        while not self._done.wait(RENEW_EVERY_S) and not self.lost.is_set():
            try:
                if not _holds(self._lock, self.token):  # this process slept for a minute, and another took it over
                    logger.error("%s: lost to another process", self._lock)
                    self.lost.set()
                    return
                times += 1
                begun = _now()
                _claim(self._lock, self.token, times, "overwrite")
                self._written_at = begun
            except Exception as error:  # noqa: BLE001  the next attempt may reach the store
                logger.warning("%s: not renewed: %s", self._lock, error)

    def _watch(self) -> None:
        while not self._done.wait(LEASE_LOOK_EVERY_S) and not self.lost.is_set():
            if _now() > self._written_at + VOID_AFTER_S - STOP_BEFORE_S:
                logger.error("%s: lost: not renewed in time, so it is void", self._lock)
                self.lost.set()


def lost_lease(path: Path | str) -> FolderBusy:
    """What to raise where the lease of an output was lost."""
    return FolderBusy(
        f"{path}: its lease was lost to another process, or not renewed in time, so nothing more is written there; "
        "what is written stays. See that no other job writes there, and give the same command again"
    )


def check_held(path: Path) -> None:
    """Refuses to write below an output whose lease this process has lost; every write to a store asks.

    Raises:
        FolderBusy: It has.
    """
    for held, lost in list(_held.items()):
        if lost.is_set() and f"{path}/".startswith(f"{held}/"):
            raise lost_lease(held)


def _claim(lock: Any, token: str, renewed: int, mode: str) -> None:
    """Writes the lease object."""
    made = _Claim(holder=f"process {os.getpid()} on {socket.gethostname()}", token=token, renewed=renewed)
    data = made.model_dump_json().encode()
    again(lock, lambda: lock.fs.pipe_file(lock.path, data, mode=mode))


def _read(lock: Any) -> bytes:
    """In one request: between two its holder may renew it."""
    data: bytes = again(lock, lambda: lock.fs.cat_file(lock.path))
    return data


def _holds(lock: Any, token: str) -> bool:
    """Whether the lease is still this one; a holder that took it over may have finished, and it is gone."""
    try:
        return _Claim.model_validate_json(_read(lock)).token == token
    except FileNotFoundError:
        return False


def _now() -> float:
    return time.clock_gettime(CLOCK)


def _busy(path: Path, holder: str) -> FolderBusy:
    return FolderBusy(f"{path}: {holder} is writing there; wait for it, or give another output")
