"""How many requests a client has in flight: more while answers come, half as many when the service has too much to do.

As TCP does it (RFC 5681). At first the number doubles in each round trip, until answers take twice as long (HyStart,
RFC 9406): what is sent waits by then, and ten clients that all double would fill any queue. From then on a round trip
adds one. The number is halved once for all that was in flight: what was sent before a halving does not halve it again.
"""

import math
import time
from types import TracebackType
from typing import Self

from anyio import CapacityLimiter

FIRST_IN_FLIGHT = 4
"""Requests in flight before anything is known of the service."""
SLOW_SHARE = 0.25
"""An answer that takes more of a request's time is slow. With twice as many in flight each waits twice as long: that
must not reach the timeout before the first slow answer is seen."""
QUEUED = 2.0
"""How many times as long as before an answer takes when requests have begun to wait."""


class AdaptiveLimit:
    """The places of one client's requests. A place that becomes free goes to the request that has waited longest."""

    def __init__(self, ceiling: int, *, first: int, timeout_s: float):
        """All places are free.

        Args:
            ceiling: Never more than these are in flight.
            first: With how many to begin.
            timeout_s: How long a request may take.
        """
        self._ceiling = ceiling
        self._slow_s = SLOW_SHARE * timeout_s
        self._places = CapacityLimiter(min(first, ceiling))
        self._doubling = True
        self._quickest_s = math.inf  # answer of the round trips before
        self._round_began, self._round_answers, self._round_quickest_s = -math.inf, 0, math.inf
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

    def answered(self, halvings: int, sent_at: float) -> None:
        """Counts an answer; `halvings` there were when its request was sent."""
        is_slow = time.monotonic() - sent_at > self._slow_s
        if self._doubling:
            self._doubling = not is_slow and not self._are_waiting(sent_at)
        # Nothing is learned from what was sent before the last halving, or while places are free.
        if is_slow or halvings < self.halvings or self.taken < self.number:
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

    def _are_waiting(self, sent_at: float) -> bool:
        """Whether the first few answers of a round trip all took longer than those before: requests wait by now."""
        now = time.monotonic()
        if sent_at >= self._round_began:  # the first answer to what was sent in this round trip: the next one begins
            self._quickest_s = min(self._quickest_s, self._round_quickest_s)
            self._round_began, self._round_answers, self._round_quickest_s = now, 0, math.inf
        self._round_answers += 1
        self._round_quickest_s = min(self._round_quickest_s, now - sent_at)
        return self._round_answers >= FIRST_IN_FLIGHT and self._round_quickest_s > QUEUED * self._quickest_s

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

    def answered(self) -> None:
        """The try was answered."""
        assert self._taken_at is not None  # noqa: S101  what is answered was sent
        self._limit.answered(self._halvings, self._taken_at)

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
