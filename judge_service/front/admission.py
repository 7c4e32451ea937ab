"""The queue of one replica. A request that cannot be answered in time is refused at once, before its body is read.

Ray would queue as well, but a full replica makes its router try again with longer and longer pauses: measured, the
service then delivers a quarter of what it can. So Ray sees a replica that accepts every request, and the replica
decides.
"""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator
from dataclasses import dataclass

FORGET = 0.95
"""The weight of older measurements each time that a request is answered: about twenty requests count."""


class Overloaded(Exception):
    """There is no room in the queue.

    Attributes:
        retry_after_s: When there will be room, in whole seconds, at least 1.
        is_full: Nobody would be taken, however long the caller waits.
    """

    def __init__(self, message: str, retry_after_s: int, *, is_full: bool):
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.is_full = is_full


class TooLate(Exception):
    """The time that the caller waits has passed."""


class Closed(Exception):
    """The service is being stopped: what waits is not begun any more."""


@dataclass(eq=False)
class _Request:
    """One that waits or works."""

    work: float
    alone: bool
    turn: asyncio.Future[None]
    """Done as soon as it may work."""
    begun: float = 0.0
    """When that was, of the loop's clock."""


class Admission:
    """Lets as many requests work as there are slots; the others wait in order.

    A request may ask to work alone. It waits until the replica is idle, and later requests wait behind it.

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
        self._waiting: dict[asyncio.Task[None], _Request] = {}  # in order, by their tasks
        self._begun: dict[asyncio.Task[None], _Request] = {}
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
    async def turn(self, work: float, patience_s: float, *, alone: bool = False) -> AsyncIterator[None]:
        """Waits for a slot, and holds it while the block runs; the block ends when the caller's time has passed.

        Args:
            work: How much the block will do.
            patience_s: How long the caller waits for its answer, in seconds.
            alone: Nothing else works while the block runs.

        Raises:
            Overloaded: The answer would come too late.
            TooLate: It did.
            Closed: The service is being stopped.
        """
        self._check(work, patience_s)
        deadline = _now() + patience_s
        task = _this_task()
        request = _Request(work, alone, asyncio.get_running_loop().create_future())
        self._waiting[task] = request
        try:
            self._let_in()
            await self._begin(task, request, deadline)
            async with asyncio.timeout(deadline - _now()) as limit:
                yield
            self._measure(work, _now() - request.begun)
        except TimeoutError as error:
            if not limit.expired():
                raise
            # It takes longer than that: without it, slow work would never be seen.
            self._measure(work, _now() - request.begun)
            raise TooLate(f"not answered within {patience_s:.3g} s") from error
        finally:
            self._waiting.pop(task, None)
            self._begun.pop(task, None)
            self._let_in()

    def close(self) -> None:
        """Refuses all that waits and all that comes; what works is left alone."""
        self._closed = True
        for task in list(self._waiting):
            task.cancel()

    async def _begin(self, task: asyncio.Task[None], request: _Request, deadline: float) -> None:
        """Waits until the request may work."""
        try:
            async with asyncio.timeout(deadline - _now()):
                await request.turn
        except TimeoutError as error:
            raise TooLate("the queue did not move in time") from error
        except asyncio.CancelledError as error:
            if not self._closed:
                raise
            task.uncancel()
            raise Closed from error

    def _let_in(self) -> None:
        """Lets work what may, in order: the first that may not holds up all that came later."""
        while self._waiting:
            task, request = next(iter(self._waiting.items()))
            if not self._has_room(request):
                return
            del self._waiting[task]
            self._begun[task] = request
            request.begun = _now()
            if not request.turn.done():  # else its caller has left
                request.turn.set_result(None)

    def _has_room(self, request: _Request) -> bool:
        if request.alone or any(other.alone for other in self._begun.values()):
            return not self._begun
        return len(self._begun) < self._slots

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
            raise Overloaded(f"{message}. Wait longer, or send fewer candidates", 1, is_full=False)
        is_full = wait > self._max_wait_s or len(self._waiting) >= self._max_waiting
        if is_full or wait > room:
            message = f"{len(self._waiting)} requests wait, and a new one would wait about {wait:.3g} s"
            retry_after_s = max(1, math.ceil(wait - room))
            raise Overloaded(f"{message}. Come back later, or add replicas", retry_after_s, is_full=is_full)

    @property
    def _pace(self) -> float:
        """Seconds that a unit of work takes in its slot."""
        return self._seconds / self._work if self._work else 0.0

    def _wait_s(self) -> float:
        """How long until a request that came now gets a slot, in seconds."""
        if sum(map(self._slots_of, self._begun.values())) < self._slots and not self._waiting:
            return 0.0
        now = _now()
        left = sum(
            max(0.0, one.work * self._pace - (now - one.begun)) * self._slots_of(one) for one in self._begun.values()
        )
        waiting = sum(one.work * self._slots_of(one) for one in self._waiting.values())
        return (left + waiting * self._pace) / self._slots

    def _slots_of(self, request: _Request) -> int:
        """How many slots it takes."""
        return self._slots if request.alone else 1

    def _measure(self, work: float, seconds: float) -> None:
        self._seconds = FORGET * self._seconds + seconds
        self._work = FORGET * self._work + work


def _now() -> float:
    return asyncio.get_running_loop().time()


def _this_task() -> asyncio.Task[None]:
    task = asyncio.current_task()
    assert task is not None  # noqa: S101  a coroutine runs in one
    return task
