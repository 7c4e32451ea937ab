"""The queue of a replica. A request that cannot be answered in time is rejected immediately, before its body is read.

Ray could also queue requests. But when a replica is full, Ray's router retries with longer and longer pauses. In a
measurement, the service then reached only a quarter of its throughput. So the replica accepts all requests from Ray,
and has its own queue.
"""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator
from dataclasses import dataclass

FORGET = 0.95
"""The factor on older measurements after each answered request. About the last twenty requests count."""


class Overloaded(Exception):
    """The queue cannot accept the request.

    Attributes:
        retry_after_s: Whole seconds until the queue can accept the request, at least 1.
        is_full: Whether the queue rejects all requests, even requests whose callers wait very long.
    """

    def __init__(self, message: str, retry_after_s: int, *, is_full: bool):
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.is_full = is_full


class TooLate(Exception):
    """The caller's timeout has passed."""


class Closed(Exception):
    """The service is being stopped, so waiting requests do not start."""


@dataclass(eq=False)
class _Request:
    """A request that waits or works."""

    work: float
    alone: bool
    turn: asyncio.Future[None]
    """A future that is done when the request may start."""
    begun: float = 0.0
    """The time of the start, on the loop's clock."""


class Admission:
    """Runs as many requests at the same time as there are slots. Other requests wait in order.

    A request can ask to run alone. Then the request waits until the replica is idle, and later requests wait behind it.

    The waiting time is estimated from the work of earlier requests. Work has no unit: only the ratio between work and
    the seconds of past requests counts.
    """

    def __init__(self, *, slots: int, max_waiting: int, max_wait_s: float):
        """Creates an empty queue.

        Args:
            slots: The number of requests that run at the same time.
            max_waiting: The number of requests that can wait.
            max_wait_s: The longest expected waiting time of an accepted request, in seconds.
        """
        self._slots = slots
        self._max_waiting = max_waiting
        self._max_wait_s = max_wait_s
        self._waiting: dict[asyncio.Task[None], _Request] = {}  # in the order of arrival
        self._begun: dict[asyncio.Task[None], _Request] = {}
        self._seconds = self._work = 0.0
        self._closed = False

    def check(self, patience_s: float) -> None:
        """Checks that a new request would start in time.

        Args:
            patience_s: Seconds that the caller waits for its answer.

        Raises:
            Overloaded: The request would not start in time.
            Closed: The service is being stopped.
        """
        self._check(0.0, patience_s)

    @contextlib.asynccontextmanager
    async def turn(
        self, work: float, patience_s: float, *, alone: bool = False
    ) -> AsyncIterator[None]:
        """Waits for a slot, and keeps the slot while the block runs. The caller's timeout ends the block.

        Args:
            work: The amount of work of the block.
            patience_s: Seconds that the caller waits for its answer.
            alone: Whether no other request may run at the same time.

        Raises:
            Overloaded: The answer would come too late.
            TooLate: The timeout has passed.
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
            # The time is a lower bound. Without this measurement, slow work would never count.
            self._measure(work, _now() - request.begun)
            raise TooLate(f"not answered within {patience_s:.3g} s") from error
        finally:
            self._waiting.pop(task, None)
            self._begun.pop(task, None)
            self._let_in()

    def close(self) -> None:
        """Rejects all waiting and all new requests. Running requests continue."""
        self._closed = True
        for task in list(self._waiting):
            task.cancel()

    async def _begin(self, task: asyncio.Task[None], request: _Request, deadline: float) -> None:
        """Waits until the request may start."""
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
        """Starts waiting requests in order. If a request cannot start, all later requests wait too."""
        while self._waiting:
            task, request = next(iter(self._waiting.items()))
            if not self._has_room(request):
                return
            del self._waiting[task]
            self._begun[task] = request
            request.begun = _now()
            if not request.turn.done():  # the future is done if the caller has left
                request.turn.set_result(None)

    def _has_room(self, request: _Request) -> bool:
        if request.alone or any(other.alone for other in self._begun.values()):
            return not self._begun
        return len(self._begun) < self._slots

    def _check(self, work: float, patience_s: float) -> None:
        if self._closed:
            raise Closed
        # An idle replica tries, since past measurements may be wrong.
        if not self._begun and not self._waiting:
            return

        # Too much work for the caller's timeout: an empty queue would not help.
        own_s = work * self._pace
        longest_wait_s = min(self._max_wait_s, patience_s - own_s)
        wait_s = self._wait_s()
        if longest_wait_s < 0:
            message = (
                f"this request needs about {own_s:.3g} s, and its caller waits {patience_s:.3g} s"
            )
            raise Overloaded(f"{message}. Wait longer, or send fewer candidates", 1, is_full=False)

        is_full = wait_s > self._max_wait_s or len(self._waiting) >= self._max_waiting
        if is_full or wait_s > longest_wait_s:
            message = f"{len(self._waiting)} requests wait, and a new request would wait about {wait_s:.3g} s"
            retry_after_s = max(1, math.ceil(wait_s - longest_wait_s))
            raise Overloaded(
                f"{message}. Retry later, or add replicas", retry_after_s, is_full=is_full
            )

    @property
    def _pace(self) -> float:
        """The seconds that a unit of work needs in a slot."""
        return self._seconds / self._work if self._work else 0.0

    def _wait_s(self) -> float:
        """Returns the estimated seconds until a new request gets a slot."""
        used_slots = sum(map(self._slots_of, self._begun.values()))
        if used_slots < self._slots and not self._waiting:
            return 0.0

        # The slots share the rest of the running work and the waiting work.
        now = _now()
        running_s = 0.0
        for request in self._begun.values():
            rest_s = max(0.0, request.work * self._pace - (now - request.begun))
            running_s += rest_s * self._slots_of(request)
        waiting = sum(request.work * self._slots_of(request) for request in self._waiting.values())
        return (running_s + waiting * self._pace) / self._slots

    def _slots_of(self, request: _Request) -> int:
        """Returns the number of slots that a request occupies."""
        return self._slots if request.alone else 1

    def _measure(self, work: float, seconds: float) -> None:
        self._seconds = FORGET * self._seconds + seconds
        self._work = FORGET * self._work + work


def _now() -> float:
    return asyncio.get_running_loop().time()


def _this_task() -> asyncio.Task[None]:
    task = asyncio.current_task()
    assert task is not None  # noqa: S101  a coroutine always runs in a task
    return task
