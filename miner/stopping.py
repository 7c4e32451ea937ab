"""How a job is asked to stop: by a signal, or because its lease was lost; and what ends then."""

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

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
def listening(heard: list[signal.Signals], on_signal: Callable[[signal.Signals], None]) -> Iterator[None]:
    """Notes the first SIGINT or SIGTERM of the block, and hands it on; inside of a running event loop.

    A second one ends the process at once, as a kill does: no thread of it writes on, and the lease of a disk is free.
    Outside of the main thread nothing is heard.
    """
    loop = asyncio.get_running_loop()
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def first(number: signal.Signals) -> None:
        for one in SIGNALS:
            loop.remove_signal_handler(one)
            signal.signal(one, signal.SIG_DFL)
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
