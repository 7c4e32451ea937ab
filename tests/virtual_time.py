"""Hours of waiting in a moment: an event loop whose clock jumps to the next event.

It works only for code that waits inside its loop, without sockets and threads.
"""

import asyncio
import types

CLOCKS = (
    "tenacity.time",
    "unijudge.client.asking.time",
    "unijudge.client.client.time",
    "unijudge.client.concurrency.time",
    "unijudge.client.patience.time",
    "unijudge.client.retry.time",
)
"""Modules whose `time.monotonic` has to agree with the loop."""


class _Loop(asyncio.SelectorEventLoop):
    now = 0.0

    def time(self):
        return self.now

    def _run_once(self):
        if not self._ready and self._scheduled:
            self.now = max(self.now, self._scheduled[0].when())
        super()._run_once()


def run(coroutine, monkeypatch):
    """Runs a coroutine, and returns its result. `time.monotonic` of the client's modules is the time of the loop."""
    with asyncio.Runner(loop_factory=_Loop) as runner:
        loop = runner.get_loop()
        with monkeypatch.context() as patches:
            for name in CLOCKS:
                patches.setattr(name, types.SimpleNamespace(monotonic=loop.time))
            return runner.run(coroutine)
