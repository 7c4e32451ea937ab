"""The number of a client's requests in flight, which grows while answers come, and is halved on overload.

The rules are those of TCP (RFC 5681). At first the number doubles in each round trip, until answers take twice as long
(HyStart, RFC 9406): requests wait in a queue by then, and ten clients that all double would fill any queue. After that,
each round trip adds one. All requests in flight cause at most one halving, because a request that was sent before a
halving does not halve the number again.
"""

import math
import time
from types import TracebackType
from typing import Self

from anyio import CapacityLimiter

FIRST_IN_FLIGHT = 4
"""Requests in flight at the beginning, when the service is still unknown."""
SLOW_SHARE = 0.25
"""The share of a request's timeout above which an answer is slow. Twice as many requests in flight take twice as long
each, which must not exceed the timeout before the first slow answer is seen."""
QUEUED = 2.0
"""The growth of the time of an answer that shows that requests wait in a queue."""


class AdaptiveLimit:
    """The places of a client's requests. A free place goes to the request that has waited longest."""

    def __init__(self, ceiling: int, *, first: int, timeout_s: float):
        """Creates the places, all of them free.

        Args:
            ceiling: The most requests in flight.
            first: The number of requests in flight at the beginning.
            timeout_s: The timeout of a request, in seconds.
        """
        self._ceiling = ceiling
        self._slow_s = SLOW_SHARE * timeout_s
        self._places = CapacityLimiter(min(first, ceiling))
        self._doubling = True
        self._quickest_s = math.inf  # the quickest answer of all earlier round trips
        self._round_began, self._round_answers, self._round_quickest_s = -math.inf, 0, math.inf
        self._answers = 0  # since the number last changed
        self.halvings = 0
        """The number of halvings."""

    @property
    def number(self) -> int:
        """Returns the number of requests that may be in flight now."""
        return int(self._places.total_tokens)

    @property
    def taken(self) -> int:
        """Returns the number of taken places. After a halving, it exceeds `number` until some requests are answered."""
        return self._places.borrowed_tokens

    def place(self) -> "Place":
        """Returns a place for a request: `async with limit.place() as place`."""
        return Place(self, self._places)

    def answered(self, halvings: int, sent_at: float) -> None:
        """Counts an answer. `halvings` is the number of halvings when the request was sent."""
        is_slow = time.monotonic() - sent_at > self._slow_s
        if self._doubling:
            self._doubling = not is_slow and not self._are_waiting(sent_at)
        # A request that was sent before the last halving, or while places are free, does not raise the number.
        if is_slow or halvings < self.halvings or self.taken < self.number:
            return
        self._answers += 1
        if self._doubling or self._answers >= self.number:
            self._set(min(self.number + 1, self._ceiling))

    def refused(self, halvings: int) -> None:
        """Halves the number, unless it was halved after the request was sent."""
        if halvings < self.halvings:
            return
        self.halvings += 1
        self._doubling = False
        self._set(max(min(self.number, self.taken) // 2, 1))

    def _are_waiting(self, sent_at: float) -> bool:
        """Whether the first few answers of a round trip all took much longer than earlier answers."""
        now = time.monotonic()
        # The first answer to a request of this round trip begins the next round trip.
        if sent_at >= self._round_began:
            self._quickest_s = min(self._quickest_s, self._round_quickest_s)
            self._round_began, self._round_answers, self._round_quickest_s = now, 0, math.inf
        self._round_answers += 1
        self._round_quickest_s = min(self._round_quickest_s, now - sent_at)
        return (
            self._round_answers >= FIRST_IN_FLIGHT
            and self._round_quickest_s > QUEUED * self._quickest_s
        )

    def _set(self, number: int) -> None:
        self._answers = 0
        self._places.total_tokens = number


class Place:
    """The place of a request.

    A request keeps its place while it waits for a retry, so that no other request is sent only to be refused too. For
    the retry it goes to the end of the queue, so that no request can hold up the others for ever.
    """

    def __init__(self, limit: AdaptiveLimit, places: CapacityLimiter):
        """Creates a request without a place."""
        self._limit, self._places = limit, places
        self._taken_at: float | None = None
        self._halvings = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._give_back()

    async def take(self) -> None:
        """Waits at the end of the queue until this request may be sent. It is called before each try."""
        self._give_back()
        await self._places.acquire_on_behalf_of(self)
        self._taken_at = time.monotonic()
        self._halvings = self._limit.halvings

    def answered(self) -> None:
        """Reports that the try was answered."""
        assert self._taken_at is not None  # noqa: S101  an answered request was sent
        self._limit.answered(self._halvings, self._taken_at)

    def refused(self) -> None:
        """Reports that the service was overloaded, or did not answer in time."""
        self._limit.refused(self._halvings)

    @property
    def held_s(self) -> float:
        """Returns the seconds since the place was taken: the last try, and the wait after it."""
        return 0.0 if self._taken_at is None else time.monotonic() - self._taken_at

    def _give_back(self) -> None:
        if self._taken_at is not None:
            self._places.release_on_behalf_of(self)
            self._taken_at = None
