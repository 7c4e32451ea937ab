"""A thread that works for one caller at a time, and skips the work of callers that have left.

If the caller leaves before the work begins, the work never begins. Work in progress checks before each of its steps
whether the caller still waits.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Concatenate, ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class CallerLeft(Exception):
    """The caller of this request no longer waits. The caller does not get this error."""


class Caller:
    """The caller of one request."""

    def __init__(self) -> None:
        self._left = threading.Event()

    def leave(self) -> None:
        """Notes that the caller no longer waits."""
        self._left.set()

    def check_waits(self) -> None:
        """Checks that the caller still waits.

        Raises:
            CallerLeft: The caller has left.
        """
        if self._left.is_set():
            raise CallerLeft


class OneThread:
    """Runs one function at a time, in the order of the calls."""

    def __init__(self, name: str):
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)

    async def run(
        self,
        work: Callable[Concatenate[Caller, Arguments], Result],
        *arguments: Arguments.args,
        **named: Arguments.kwargs,
    ) -> Result:
        """Runs a function in the thread, and returns its result. If this task is cancelled, the function stops early.

        Args:
            work: The function. Its first argument is the caller, and `check_waits` of the caller precedes each step.
            *arguments: The other arguments of the function.
            **named: The keyword arguments of the function.
        """
        caller = Caller()

        def begin() -> Result:
            caller.check_waits()
            return work(caller, *arguments, **named)

        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, begin)
        finally:
            caller.leave()
