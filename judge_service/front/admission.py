"""The queue of one replica. A request that cannot be answered in time is refused at once, before its body is read.

Ray would queue as well, but a full replica makes its router try again with longer and longer pauses: measured, the
service then delivers a quarter of what it can. So Ray sees a replica that accepts every request, and the replica
decides.
"""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator

FORGET = 0.95
"""The weight of older measurements each time that a request is answered: about twenty requests count."""


class Overloaded(Exception):
    """There is no room in the queue.

    Attributes:
        retry_after_s: When there will be room, in whole seconds, at least 1.
    """

    def __init__(self, message: str, retry_after_s: int):
        super().__init__(message)
        self.retry_after_s = retry_after_s


class TooLate(Exception):
    """The time that the caller waits has passed."""


class Closed(Exception):
    """The service is being stopped: what waits is not begun any more."""


class Admission:
    """Lets as many requests work as there are slots; the others wait in order.

    How long a request would wait is estimated from the work that stands before it. Work has no unit: only the ratio to
    the seconds that earlier work took counts.
    """

    def __init__(self, *, slots: int, max_waiting: int, max_wait_s: float):
        """An empty queue.

        Args:
            slots: How many requests work at once.
            max_waiting: How many requests may wait.
            max_wait_s: Nobody waits who would wait longer, in seconds.
        """
        self._slots = slots
        self._max_waiting = max_waiting
        self._max_wait_s = max_wait_s
        self._free = asyncio.Semaphore(slots)
        self._waiting: dict[asyncio.Task[None], float] = {}  # the task of each request that waits → its work
        self._begun: dict[asyncio.Task[None], tuple[float, float]] = {}  # of each that works → its work, its start
        self._seconds = self._work = 0.0
        self._closed = False

    def check(self, patience_s: float) -> None:
        """Returns if a request that came now would be begun in time.

        Args:
            patience_s: How long the caller waits for its answer, in seconds.

        Raises:
            Overloaded: It would not.
            Closed: The service is being stopped.
        """
        self._check(0.0, patience_s)

    @contextlib.asynccontextmanager
    async def turn(self, work: float, patience_s: float) -> AsyncIterator[None]:
        """Waits for a slot, and holds it while the block runs; the block ends when the caller's time has passed.

        Args:
            work: How much the block will do.
            patience_s: How long the caller waits for its answer, in seconds.

        Raises:
            Overloaded: The answer would come too late.
            TooLate: It did.
            Closed: The service is being stopped.
        """
        self._check(work, patience_s)
        deadline = _now() + patience_s
        await self._slot(work, deadline)
        task, begun = _this_task(), _now()
        self._begun[task] = work, begun
        try:
            async with asyncio.timeout(deadline - _now()) as limit:
                yield
            self._measure(work, _now() - begun)
        except TimeoutError as error:
            if not limit.expired():
                raise
            self._measure(work, _now() - begun)  # it takes longer than that: without it, slow work would never be seen
            raise TooLate(f"not answered within {patience_s:.3g} s") from error
        finally:
            del self._begun[task]
            self._free.release()

    def close(self) -> None:
        """Refuses all that waits and all that comes; what works is left alone."""
        self._closed = True
        for task in list(self._waiting):
            task.cancel()

    async def _slot(self, work: float, deadline: float) -> None:
        """Waits for a slot."""
        task = _this_task()
        self._waiting[task] = work
        try:
            async with asyncio.timeout(deadline - _now()) as limit:
                await self._free.acquire()
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise TooLate("the queue did not move in time") from error
        except asyncio.CancelledError as error:
            if not self._closed:
                raise
            task.uncancel()
            raise Closed from error
        finally:
            del self._waiting[task]

    def _check(self, work: float, patience_s: float) -> None:
        if self._closed:
            raise Closed
        if not self._begun and not self._waiting:  # whatever was measured before: it may have been a bad moment
            return
        own = work * self._pace
        room = min(self._max_wait_s, patience_s - own)
        wait = self._wait_s()
        if room < 0:
            message = f"this request takes about {own:.3g} s, and its caller waits {patience_s:.3g} s"
            raise Overloaded(f"{message}. Wait longer, or send fewer candidates", 1)
        if wait > room or len(self._waiting) >= self._max_waiting:
            message = f"{len(self._waiting)} requests wait, and a new one would wait about {wait:.3g} s"
            raise Overloaded(f"{message}. Come back later, or add replicas", max(1, math.ceil(wait - room)))

    @property
    def _pace(self) -> float:
        """Seconds that a unit of work takes in its slot."""
        return self._seconds / self._work if self._work else 0.0

    def _wait_s(self) -> float:
        """How long until a request that came now gets a slot, in seconds."""
        if len(self._begun) < self._slots and not self._waiting:
            return 0.0
        now = _now()
        left = sum(max(0.0, work * self._pace - (now - begun)) for work, begun in self._begun.values())
        return (left + sum(self._waiting.values()) * self._pace) / self._slots

    def _measure(self, work: float, seconds: float) -> None:
        self._seconds = FORGET * self._seconds + seconds
        self._work = FORGET * self._work + work


def _now() -> float:
    return asyncio.get_running_loop().time()


def _this_task() -> asyncio.Task[None]:
    task = asyncio.current_task()
    assert task is not None  # noqa: S101  a coroutine runs in one
    return task
