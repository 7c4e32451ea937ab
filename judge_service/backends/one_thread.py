"""One thread that works for one caller at a time, and for nobody who has left.

A request whose caller left before it began never begins. One that has begun looks, before each of its steps, whether
somebody still waits for it.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Concatenate, ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class CallerLeft(Exception):
    """Nobody waits for this request any more, so nobody hears of this error."""


class Caller:
    """Who asked for one request."""

    def __init__(self) -> None:
        self._left = threading.Event()

    def leave(self) -> None:
        """From now on nobody waits."""
        self._left.set()

    def check_waits(self) -> None:
        """Returns while somebody waits.

        Raises:
            CallerLeft: Nobody does.
        """
        if self._left.is_set():
            raise CallerLeft


class OneThread:
    """Runs what it is given, one after the other, in the order of its callers."""

    def __init__(self, name: str):
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)

    async def run(
        self,
        work: Callable[Concatenate[Caller, Arguments], Result],
        *arguments: Arguments.args,
        **named: Arguments.kwargs,
    ) -> Result:
        """What the work returns, unless the caller is cancelled or runs out of time.

        Args:
            work: Gets its caller first, and asks it before each step.
            *arguments: What the work gets beside.
            **named: The same, by name.
        """
        caller = Caller()

        def begin() -> Result:
            caller.check_waits()
            return work(caller, *arguments, **named)

        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, begin)
        finally:
            caller.leave()
