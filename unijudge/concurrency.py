"""How many requests a client has in flight: more while answers come, half as many when the service has too much to do.

As TCP does it (RFC 5681). Up to the first refusal or slow answer the number doubles in each round trip; from then on a
round trip of quick answers adds one. It is halved once for all that was in flight: what was sent before a halving does
not halve it again.
"""

import time
from types import TracebackType
from typing import Self

from anyio import CapacityLimiter

FIRST = 4
"""Requests in flight before anything is known of the service."""


class AdaptiveLimit:
    """The places of one client's requests. A place that becomes free goes to the request that has waited longest."""

    def __init__(self, ceiling: int, first: int):
        """All places are free.

        Args:
            ceiling: Never more than these are in flight.
            first: With how many to begin.
        """
        self._ceiling = ceiling
        self._places = CapacityLimiter(min(first, ceiling))
        self._doubling = True
        self._answers = 0  # since the number last changed
        self.halvings = 0
        """How often the number was halved."""

    @property
    def number(self) -> int:
        """How many requests may be in flight now."""
        return int(self._places.total_tokens)

    @property
    def taken(self) -> int:
        """How many hold a place: more than `number` after it was halved, until some are answered."""
        return self._places.borrowed_tokens

    def place(self) -> "Place":
        """For one request: `async with limit.place() as place`."""
        return Place(self, self._places)

    def answered(self, halvings: int, *, is_slow: bool) -> None:
        """Counts an answer; `halvings` there were when its request was sent. A slow one raises nothing."""
        if is_slow:
            self._doubling = False
            return
        # Nothing is learned from what was sent before the last halving, or while places are free.
        if halvings < self.halvings or self.taken < self.number:
            return
        self._answers += 1
        if self._doubling or self._answers >= self.number:
            self._set(min(self.number + 1, self._ceiling))

    def refused(self, halvings: int) -> None:
        """Halves the number, unless that was done since the request was sent."""
        if halvings < self.halvings:
            return
        self.halvings += 1
        self._doubling = False
        self._set(max(min(self.number, self.taken) // 2, 1))

    def _set(self, number: int) -> None:
        self._answers = 0
        self._places.total_tokens = number


class Place:
    """One request's place. It keeps the place while it waits to come back: no other one is sent to be refused as well.

    Then it goes to the end of those that wait, so that no request can hold up the others for ever.
    """

    def __init__(self, limit: AdaptiveLimit, places: CapacityLimiter):
        """Holds none yet."""
        self._limit, self._places = limit, places
        self._taken_at: float | None = None
        self._halvings = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._give_back()

    async def take(self) -> None:
        """Before each try: waits until this request may be sent, behind all that wait already."""
        self._give_back()
        await self._places.acquire_on_behalf_of(self)
        self._taken_at = time.monotonic()
        self._halvings = self._limit.halvings

    def answered(self, *, is_slow: bool = False) -> None:
        """The try was answered; slowly, if it had no time to wait behind many more."""
        self._limit.answered(self._halvings, is_slow=is_slow)

    def refused(self) -> None:
        """The service had too much to do, or did not answer in time."""
        self._limit.refused(self._halvings)

    @property
    def held_s(self) -> float:
        """For how long it has held its place, in seconds: the last try, and the wait after it."""
        return 0.0 if self._taken_at is None else time.monotonic() - self._taken_at

    def _give_back(self) -> None:
        if self._taken_at is not None:
            self._places.release_on_behalf_of(self)
            self._taken_at = None
