"""How a job is asked to stop: by a signal, or because its lease was lost; and what ends then."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(Exception):
    """The job was asked to stop; what is written stays."""


def check(stop: threading.Event | None) -> None:
    """Ends a job that was asked to stop.

    Raises:
        Stopped: `stop` is set.
    """
    if stop is not None and stop.is_set():
        raise Stopped


@contextmanager
def listening(on_signal: Callable[[signal.Signals], None]) -> Iterator[list[signal.Signals]]:
    """Hands on the first SIGINT or SIGTERM of the block, and yields a list that then holds it.

    A second one ends the process at once, as a kill does: no thread of it writes on, and the lease of a disk is free.
    Outside of the main thread nothing is heard.
    """
    heard: list[signal.Signals] = []
    if threading.current_thread() is not threading.main_thread():
        yield heard
        return

    def first(number: int, _: Any) -> None:
        for one in SIGNALS:
            signal.signal(one, signal.SIG_DFL)
        heard.append(signal.Signals(number))
        on_signal(heard[0])

    before = {number: signal.signal(number, first) for number in SIGNALS}
    try:
        yield heard
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
