"""The resources of the service's process: the handlers of signals, the lock of the port, and a temporary folder."""

import contextlib
import fcntl
import logging
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from judge_service.settings import ServiceSettings
from unijudge.errors import SettingsError

logger = logging.getLogger(__name__)

FOLDER_PREFIX = "unijudge-judge-"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def service_folder() -> Iterator[Path]:
    """Creates a temporary folder, and removes the folder at the end. Also removes the folders of killed processes."""
    for old in Path(tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}*"):
        if _is_abandoned(old):
            shutil.rmtree(old, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=FOLDER_PREFIX, ignore_cleanup_errors=True) as name:
        folder = Path(name)
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield folder


def _is_abandoned(folder: Path) -> bool:
    """Whether no process holds the lock of a folder."""
    try:
        with (folder / "lock").open("rb+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    except OSError:  # the lock is held, belongs to another user, or does not exist yet
        return False


def with_port(settings: ServiceSettings) -> ServiceSettings:
    """Returns the settings with a free port in the place of 0. Ray would choose a port without reporting it.

    Raises:
        SettingsError: The host is not an address of this machine.
    """
    if settings.port or settings.address is not None:
        return settings
    try:
        with socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET) as trial:
            trial.bind((settings.host, 0))
            return settings.model_copy(update={"port": trial.getsockname()[1]})
    except OSError as error:
        raise SettingsError(
            f"cannot listen on {settings.host} ({error.strerror}). Set another host"
        ) from error


@contextlib.contextmanager
def port_lock(settings: ServiceSettings) -> Iterator[None]:
    """Locks the port against other services of this machine. The lock is held before the port is opened.

    Raises:
        SettingsError: Another service has the lock.
    """
    if settings.address is not None or not settings.port:
        yield
        return

    # Services of other users must be able to read the file, whatever the umask of this shell.
    path = Path(tempfile.gettempdir()) / f"unijudge-port-{settings.port}.lock"
    with contextlib.suppress(FileExistsError, PermissionError):
        path.touch(exist_ok=False)
        path.chmod(0o644)
    try:
        lock = path.open("rb")
    except OSError as error:
        raise SettingsError(
            f"port: the lock {path} of port {settings.port} cannot be read ({error.strerror}). Remove this file, set "
            "another port, or set TMPDIR to your own folder"
        ) from error

    # The system releases the lock when this process ends.
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SettingsError(
                f"port: {settings.port}: another judge service of this machine uses this port. Stop that service, or "
                "set another port"
            ) from error
        yield


@contextlib.contextmanager
def stopping_at_signals(stop: threading.Event) -> Iterator[None]:
    """Replaces the handlers of signals until the block ends: a signal then sets the event."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    _handle_signals(stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _handle_signals(stop: threading.Event) -> None:
    """Installs handlers that set the event."""

    def on_signal(number: int, _: FrameType | None) -> None:
        logger.info(
            "%s: the service stops when its running requests are answered",
            signal.Signals(number).name,
        )
        stop.set()

    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:  # `nohup` ignores SIGHUP
            signal.signal(number, on_signal)
