"""What the process of the service holds while it runs: its signals, its port, and a folder of its own."""

import contextlib
import fcntl
import logging
import shutil
import signal
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
    """A temporary folder that ends with this process. What a killed process left is removed."""
    for old in Path(tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}*"):
        if _is_abandoned(old):
            shutil.rmtree(old, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=FOLDER_PREFIX, ignore_cleanup_errors=True) as name:
        folder = Path(name)
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield folder


def _is_abandoned(folder: Path) -> bool:
    """Whether no process holds its lock any more."""
    try:
        with (folder / "lock").open("rb+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    except OSError:  # held, of another user, or not locked yet
        return False


@contextlib.contextmanager
def port_lock(settings: ServiceSettings) -> Iterator[None]:
    """Keeps other services of this machine off the port, from before the port is opened.

    Raises:
        SettingsError: Another one has it.
    """
    if settings.address is not None or not settings.port:
        yield
        return
    path = Path(tempfile.gettempdir()) / f"unijudge-port-{settings.port}.lock"
    with contextlib.suppress(FileExistsError, PermissionError):
        path.touch(exist_ok=False)
        path.chmod(0o644)  # whatever the shell's umask: services of other users look at it too
    try:
        lock = path.open("rb")
    except OSError as error:
        raise SettingsError(
            f"port: {settings.port}: its lock {path} cannot be read ({error.strerror}). Remove that file, set another "
            "port, or set TMPDIR to a folder of your own"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SettingsError(
                f"port: {settings.port}: another judge service of this machine uses it. Stop it, or set another port"
            ) from error
        yield


@contextlib.contextmanager
def stopping_at_signals(stop: threading.Event) -> Iterator[None]:
    """Sets the event at a signal, instead of what the signals did before, until the block ends."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    _handle_signals(stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _handle_signals(stop: threading.Event) -> None:
    """Lets the signals that end a service set the event."""

    def on_signal(number: int, _: FrameType | None) -> None:
        logger.info("%s: finishing the requests in work", signal.Signals(number).name)
        stop.set()

    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:  # `nohup` wants to be left alone
            signal.signal(number, on_signal)
