"""Stops a job when a signal arrives or when the job has lost its lease."""

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(Exception):
    """The job was asked to stop. Files that are already written are kept."""


def check(stop: threading.Event | None) -> None:
    """Checks whether the job was asked to stop.

    Raises:
        Stopped: `stop` is set.
    """
    if stop is not None and stop.is_set():
        raise Stopped


@contextmanager
def listening(
    heard: list[signal.Signals], on_signal: Callable[[signal.Signals], None]
) -> Iterator[None]:
    """Appends the first SIGINT or SIGTERM to `heard` and calls `on_signal`. Must run inside an event loop.

    A second signal ends the process at once, as a kill does: no thread keeps writing, and a lease on a local disk is
    released. Outside the main thread signals are ignored.
    """
    loop = asyncio.get_running_loop()
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def first(number: signal.Signals) -> None:
        for each in SIGNALS:
            loop.remove_signal_handler(each)
            signal.signal(each, signal.SIG_DFL)
        heard.append(number)
        on_signal(number)

    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        loop.add_signal_handler(number, first, number)
    try:
        yield
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)
