"""When a request is sent again, and when it is given up.

Again: when another try may be answered, after a random time, and never sooner than the service asked for
(`Retry-After`). Given up: when the service answered nothing at all for a while; one request alone, when others are
answered and it is not.
"""

import logging
import random
import time
from collections.abc import Awaitable, Callable

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_before_delay

from unijudge.client.concurrency import AdaptiveLimit
from unijudge.client.patience import Patience, backoff
from unijudge.errors import (
    JudgeBusy,
    JudgeDied,
    JudgeError,
    JudgeFailed,
    JudgeKilled,
    JudgeNowhere,
    JudgeRefused,
    JudgeUnavailable,
)

logger = logging.getLogger(__name__)

TELL_AFTER_S, TELL_EVERY_S = 3, 60
FAILED_TRIES = 3
"""How often a request is sent on which the service itself fails; then it is a refusal, and other requests go on."""
DEATHS = 2
"""At how many deaths of replicas or engines a request may be in work beside others, before it is asked alone."""
VAIN_TIMES = 8
"""How many times `request_timeout_s`, and at least `retry_for_s`, a request is late or refused while others are
answered; then it is given up. Eight halvings bring 128 in flight down to one: what is late then is late by itself."""
SHORTEST_WAIT_S, WAIT_SPREAD = 0.25, 0.5
"""The least time that a service can ask for, and the share of it by which each request comes back later."""

Try = Callable[[], Awaitable[bytes]]
"""Sends a request once."""


class Retrying:
    """Sends the requests of one client until they are answered."""

    def __init__(self, limit: AdaptiveLimit, *, request_timeout_s: float, retry_for_s: float):
        """Sends nothing yet.

        Args:
            limit: Of the questions that are in flight at once.
            request_timeout_s: How long one try may take.
            retry_for_s: How long to go on while nothing is answered.
        """
        self._limit = limit
        self._request_timeout_s, self._retry_for_s = request_timeout_s, retry_for_s
        self._patience = Patience(retry_for_s, JudgeNowhere)
        self._quiet_until = float("-inf")

    async def call(self, once: Try, retry_for_s: float | None = None) -> bytes:
        """A request that is no work for the judge: it needs no place among those in flight.

        Args:
            once: Sends it.
            retry_for_s: How long to go on, answers to others or not; never longer than the client itself.

        Raises:
            JudgeError: It was not answered.
        """
        if retry_for_s is None:
            return await self._until_answered(once, self._patience.is_over)
        return await self._until_answered(once, stop_before_delay(min(retry_for_s, self._retry_for_s)))

    async def question(self, once: Try, *, alone: bool) -> bytes:
        """A request that the judge has to work for. The client learns from its tries how many may be in flight.

        Args:
            once: Sends it.
            alone: The replica works on nothing else meanwhile: then one death says enough.

        Raises:
            JudgeKilled: A replica or an engine died each time that it worked on this request.
            JudgeError: It was not answered.
        """
        in_vain_s = 0.0
        async with self._limit.place() as place:

            async def once_in_flight() -> bytes:
                nonlocal in_vain_s
                in_vain_s += place.held_s
                await place.take()
                begun = time.monotonic()
                try:
                    content = await once()
                except JudgeUnavailable as error:
                    if isinstance(error, JudgeBusy):
                        place.refused()
                    self._check_vain(error, in_vain_s + place.held_s, begun)
                    raise
                self._patience.answered()
                place.answered()
                return content

            return await self._until_answered(once_in_flight, self._patience.is_over, deaths=1 if alone else DEATHS)

    def _check_vain(self, error: JudgeUnavailable, in_vain_s: float, begun: float) -> None:
        """Returns unless it is the request's own fault that it is not answered.

        Raises:
            JudgeRefused: It was in flight for long, and others were answered.
        """
        enough_s = self._retry_for_s
        if isinstance(error, JudgeBusy):  # the others may be what keeps it busy
            enough_s = max(enough_s, VAIN_TIMES * self._request_timeout_s)
        others_are_answered = self._patience.answered_at > begun - self._request_timeout_s
        if others_are_answered and in_vain_s >= enough_s:
            reason = f"{error}; or leave it out: it was tried for {in_vain_s:.0f} s, in which others were answered"
            raise JudgeRefused(reason) from error

    async def _until_answered(
        self, once: Try, stop: Callable[[RetryCallState], bool], *, deaths: int = DEATHS
    ) -> bytes:
        """Tries until there is an answer, or an error that another try would not change, or `stop` says so."""
        retrying = AsyncRetrying(
            stop=stop,
            wait=_wait,
            retry=retry_if_exception(lambda error: isinstance(error, JudgeError) and error.retryable),
            before_sleep=self._tell,
            reraise=True,
        )
        failed = died = 0

        async def counted() -> bytes:
            nonlocal failed, died
            try:
                return await once()
            except JudgeFailed as error:
                failed += 1
                if failed == FAILED_TRIES:
                    reason = f"{error}. It was sent {failed} times; look there, or leave it out"
                    raise JudgeRefused(reason) from error
                raise
            except JudgeDied as error:
                died += 1
                if died == deaths:
                    reason = f"its judge died each time that it was in work ({error}). Look there, or leave it out"
                    raise JudgeKilled(reason) from error
                raise

        content: bytes = await retrying(counted)
        self._patience.is_known = True
        return content

    def _tell(self, state: RetryCallState) -> None:
        """Says, once a minute, for what a person waits; that the service is busy, only where nothing is answered."""
        error = state.outcome.exception() if state.outcome else None
        asked_to_wait = isinstance(error, JudgeUnavailable) and error.retry_after_s is not None
        now = time.monotonic()
        tell_after_s = TELL_EVERY_S if asked_to_wait else TELL_AFTER_S
        if self._patience.quiet_s(state) > tell_after_s and now > self._quiet_until:
            self._quiet_until = now + TELL_EVERY_S
            logger.warning("%s; trying on for up to %.0f s", error, self._patience.longest_s)


def _wait(state: RetryCallState) -> float:
    """The backoff; or, where the service asked for a time, that and up to half of it more.

    Clients that were refused together must not come back together.
    """
    error = state.outcome.exception() if state.outcome else None
    asked_s = error.retry_after_s if isinstance(error, JudgeUnavailable) else None
    if asked_s is None:
        return backoff(state)
    return max(asked_s, SHORTEST_WAIT_S) * random.uniform(1, 1 + WAIT_SPREAD)  # noqa: S311  no secret
