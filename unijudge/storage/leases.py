"""Leases, which ensure that an output has one writer: a second writer is refused, and a killed writer loses its lease.

On a disk, the lease is a lock that the kernel frees when the process dies. An object store has no locks. There, the
lease is an object that a process creates only if the object does not exist, and renews while the process lives. Another
process that finds the object watches for renewals, and takes the lease over after a minute without a renewal. So no
process compares its clock with the clock of another machine.
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
from typing import IO, Any

from pydantic import BaseModel

from unijudge.errors import FolderBusy
from unijudge.storage.access_errors import CURE_OF_ERRNO, unwritable
from unijudge.storage.locations import is_local
from unijudge.storage.stores import again

logger = logging.getLogger(__name__)

RENEW_EVERY_S = 5
"""Seconds between two renewals, and so the longest wait until another process sees that the holder lives."""
VOID_AFTER_S = 60
"""Seconds without a renewal after which another process may take over a lease in an object store."""
STOP_BEFORE_S = 10
"""Seconds before that limit at which the holder stops writing."""
LEASE_LOOK_EVERY_S = 1
PEEK_S = 0.1
"""Seconds after which a lock is tried once more: another process may hold the lock only to look (`check_free`)."""

BESIDE = CURE_OF_ERRNO | dict.fromkeys(
    (errno.EACCES, errno.EPERM, errno.EROFS),
    "The lock of an output is beside the output: fix the permissions there, or give a folder inside that folder",
)
"""Error number → its cure, where a lock cannot be written."""

CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""A clock that nobody can set. Where the system allows, it also counts the time while the machine sleeps."""

_held: dict[str, threading.Event] = {}
"""Outputs in stores whose lease this process holds → an event that is set when the lease is lost."""


@contextlib.contextmanager
def lease(path: Path) -> Iterator[threading.Event]:
    """Holds the lease of an output path for this process, until the block or the process ends.

    Only a lease in an object store can be lost. The holder must stop then; further writes there are refused
    (`check_held`). The lock lies beside the output, so that it also works for a folder that is published atomically.

    Yields:
        An event that is set when the lease is lost.

    Raises:
        FolderBusy: Another live process holds the lease; the message names that process.
        DataError: The lock cannot be written.
    """
    if is_local(path):
        with _locked(path):
            yield threading.Event()
    else:
        with _object(path) as lost:
            yield lost


def check_free(path: Path) -> None:
    """Refuses an output on a disk that another process writes. This process does not take the lease.

    A command calls this before it loads large libraries or starts a cluster, and takes the lease later. So a person
    waits only for a moment.

    Raises:
        FolderBusy: Another live process holds the lease.
    """
    if not is_local(path):
        return
    path = path.resolve()
    try:
        holder = _lock_of(path).open(encoding="utf-8")
    except OSError:
        return  # there is no lock yet, or `lease` names the fault
    with holder:
        try:
            fcntl.flock(holder, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise _busy(path, _process_in(holder)) from error
        except OSError:
            return


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    path = path.resolve()
    lock = _lock_of(path)
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        # O_NOFOLLOW: if the lock is a symbolic link, its target must not be overwritten.
        holder = os.fdopen(
            os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666), "r+"
        )
    except OSError as error:
        raise unwritable(lock, error, BESIDE) from error
    with holder:
        try:
            _lock(holder)
        except BlockingIOError as error:
            raise _busy(path, _process_in(holder)) from error
        except OSError as error:
            raise unwritable(path, error) from error
        try:
            # Without Python's buffer: closing the file would write the buffer again, and fail again on a full disk.
            os.ftruncate(holder.fileno(), 0)
            os.pwrite(holder.fileno(), str(os.getpid()).encode(), 0)
        except OSError as error:
            raise unwritable(lock, error, BESIDE) from error
        yield


def _lock_of(path: Path) -> Path:
    """Returns the path of the lock of an output."""
    return path.with_name(f".{path.name}.lease")


def _lock(holder: IO[str]) -> None:
    """Takes the lock of an open file.

    Raises:
        BlockingIOError: Another process holds the lock.
    """
    try:
        fcntl.flock(holder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        time.sleep(PEEK_S)
        fcntl.flock(holder, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _process_in(holder: IO[str]) -> str:
    """Returns the holder of a lock in words."""
    holder.seek(0)
    return f"process {holder.read().strip() or 'unknown'}"


class _Claim(BaseModel):
    """The content of the lease object."""

    holder: str
    """The machine and process of the holder, for people."""
    token: str
    renewed: int = 0
    """The number of renewals. A growing number shows that the holder lives."""


@contextlib.contextmanager
def _object(path: Any) -> Iterator[threading.Event]:
    lock: Any = _lock_of(path)
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
        # A lease that stays is void in a minute, and the output is complete.
        with contextlib.suppress(Exception):
            if _holds(lock, holder.token):
                again(lock, lambda: lock.fs.rm_file(lock.path))


def _taken(path: Path, lock: Any) -> tuple[str, float]:
    """Takes the lease for this process, and returns its token and the time when it was written.

    Raises:
        FolderBusy: The present holder lives.
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
    # Other processes may take over the lease at the same time: the last writer holds it.
    time.sleep(1)
    if not _holds(lock, token):
        raise _busy(path, "another process")
    return token, begun


def _create(lock: Any, token: str) -> bool:
    """Creates the lease object; returns False if another process holds a lease."""
    try:
        _claim(lock, token, 0, "create")
    except FileExistsError:
        return _holds(lock, token)  # True if our first try created it, and only the answer was lost
    return True


def _is_void(path: Path, lock: Any) -> bool:
    """Watches a lease for a minute: True if it was not renewed, False if it was removed meanwhile.

    Raises:
        FolderBusy: The lease was renewed.
    """
    try:
        first = _read(lock)
        holder = _Claim.model_validate_json(first).holder
        seen_at = _now()
        logger.info(
            "%s: %s holds the lease; checking for up to %d s whether it is alive",
            path,
            holder,
            VOID_AFTER_S,
        )
        while _now() < seen_at + VOID_AFTER_S:
            time.sleep(min(LEASE_LOOK_EVERY_S, VOID_AFTER_S))
            if _read(lock) != first:
                raise _busy(path, holder)
    except FileNotFoundError:
        return False
    return True


class _Holder:
    """Renews a lease in an object store, and reports its loss.

    A lease is lost when another process takes it over, or when it was not renewed in time.
    """

    def __init__(self, lock: Any, token: str, written_at: float):
        self._lock, self.token, self._written_at = lock, token, written_at
        self.lost = threading.Event()
        self._done = threading.Event()

    @contextlib.contextmanager
    def renewed(self) -> Iterator[None]:
        """Renews the lease during the block. A second thread watches the clock, since a store may hang for minutes."""
        threads = [
            threading.Thread(target=work, name="lease", daemon=True)
            for work in (self._renew, self._watch)
        ]
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
                # Another process took the lease over while this one slept.
                if not _holds(self._lock, self.token):
                    logger.error("%s: lease lost to another process", self._lock)
                    self.lost.set()
                    return
                times += 1
                begun = _now()
                _claim(self._lock, self.token, times, "overwrite")
                self._written_at = begun
            except Exception as error:  # noqa: BLE001  the next attempt may reach the store
                logger.warning("%s: lease not renewed: %s", self._lock, error)

    def _watch(self) -> None:
        while not self._done.wait(LEASE_LOOK_EVERY_S) and not self.lost.is_set():
            if _now() > self._written_at + VOID_AFTER_S - STOP_BEFORE_S:
                logger.error("%s: lease lost, because it was not renewed in time", self._lock)
                self.lost.set()


def lost_lease(path: Path | str) -> FolderBusy:
    """Returns the error to raise when the lease of an output was lost."""
    return FolderBusy(
        f"{path}: the lease was lost to another process, or not renewed in time, so this command stopped writing. The "
        "files written so far remain. Check that no other job writes there, then run the same command again"
    )


def check_held(path: Path) -> None:
    """Refuses a write below an output whose lease this process has lost. It is called before every write to a store.

    Raises:
        FolderBusy: The lease was lost.
    """
    for held, lost in list(_held.items()):
        if lost.is_set() and f"{path}/".startswith(f"{held}/"):
            raise lost_lease(held)


def _claim(lock: Any, token: str, renewed: int, mode: str) -> None:
    """Writes the lease object."""
    made = _Claim(
        holder=f"process {os.getpid()} on {socket.gethostname()}", token=token, renewed=renewed
    )
    data = made.model_dump_json().encode()
    again(lock, lambda: lock.fs.pipe_file(lock.path, data, mode=mode))


def _read(lock: Any) -> bytes:
    """Reads the lease object in one request: the holder may renew the lease between two requests."""
    data: bytes = again(lock, lambda: lock.fs.cat_file(lock.path))
    return data


def _holds(lock: Any, token: str) -> bool:
    """Whether the lease object still has this token. It has gone if another process took it over and then finished."""
    try:
        return _Claim.model_validate_json(_read(lock)).token == token
    except FileNotFoundError:
        return False


def _now() -> float:
    return time.clock_gettime(CLOCK)


def _busy(path: Path, holder: str) -> FolderBusy:
    return FolderBusy(f"{path}: {holder} is writing there. Wait for it, or give another output")
