"""The retries of a request, and the end of the retries.

A request is retried if another try may be answered. The wait is random, and at least as long as the service asked for
(`Retry-After`). The retries end when the service has answered no request for a while, or when other requests are
answered but this request is not.
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
"""The number of tries of a request on which the service itself fails. After that, it counts as refused."""
DEATHS = 2
"""The number of deaths of replicas or engines during a request beside others, after which it is sent alone."""
VAIN_TIMES = 8
"""The number of `request_timeout_s` (at least `retry_for_s`) for which a request may be late or refused while others
are answered. Eight halvings reduce 128 requests in flight to one: a request that is late then is late by itself."""
SHORTEST_WAIT_S, WAIT_SPREAD = 0.25, 0.5
"""The shortest wait for `Retry-After`, in seconds, and the largest random extension of a wait, as a share."""

Try = Callable[[], Awaitable[bytes]]
"""A function that sends a request once."""


class Retrying:
    """The requests of a client, which are sent until they are answered."""

    def __init__(self, limit: AdaptiveLimit, *, request_timeout_s: float, retry_for_s: float):
        """Starts without a request.

        Args:
            limit: The limit of questions in flight.
            request_timeout_s: The timeout of a try, in seconds.
            retry_for_s: The time limit without any answer, in seconds.
        """
        self._limit = limit
        self._request_timeout_s, self._retry_for_s = request_timeout_s, retry_for_s
        self._patience = Patience(retry_for_s, JudgeNowhere)
        self._quiet_until = float("-inf")

    async def call(self, once: Try, retry_for_s: float | None = None) -> bytes:
        """Sends a request that is not work for the judge, and so needs no place in `limit`.

        Args:
            once: A function that sends the request once.
            retry_for_s: The time limit of the retries, whether others are answered or not. The client's limit is the
                maximum.

        Raises:
            JudgeError: The request was not answered.
        """
        if retry_for_s is None:
            return await self._until_answered(once, self._patience.is_over)
        return await self._until_answered(
            once, stop_before_delay(min(retry_for_s, self._retry_for_s))
        )

    async def question(self, once: Try, *, alone: bool) -> bytes:
        """Sends a request that is work for the judge. Its tries adapt the number of requests in flight.

        Args:
            once: A function that sends the request once.
            alone: Whether the replica works on nothing else, so that a single death proves the cause.

        Raises:
            JudgeKilled: A replica or an engine died on every try of this request.
            JudgeError: The request was not answered.
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

            return await self._until_answered(
                once_in_flight, self._patience.is_over, deaths=1 if alone else DEATHS
            )

    def _check_vain(self, error: JudgeUnavailable, in_vain_s: float, begun: float) -> None:
        """Checks that the request itself is not the reason for the missing answer.

        Raises:
            JudgeRefused: The request was in flight for long, while others were answered.
        """
        enough_s = self._retry_for_s
        if isinstance(error, JudgeBusy):  # the other requests may keep the service busy
            enough_s = max(enough_s, VAIN_TIMES * self._request_timeout_s)
        others_are_answered = self._patience.answered_at > begun - self._request_timeout_s
        if others_are_answered and in_vain_s >= enough_s:
            reason = (
                f"{error}. Or leave out this request: other requests were answered while it was tried for "
                f"{in_vain_s:.0f} s"
            )
            raise JudgeRefused(reason) from error

    async def _until_answered(
        self, once: Try, stop: Callable[[RetryCallState], bool], *, deaths: int = DEATHS
    ) -> bytes:
        """Tries until there is an answer, an error that is not retryable, or the end by `stop`."""
        retrying = AsyncRetrying(
            stop=stop,
            wait=_wait,
            retry=retry_if_exception(
                lambda error: isinstance(error, JudgeError) and error.retryable
            ),
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
                    reason = f"{error}. It was sent {failed} times. Look there, or leave this request out"
                    raise JudgeRefused(reason) from error
                raise
            except JudgeDied as error:
                died += 1
                if died == deaths:
                    reason = f"its judge died each time on this request ({error}). Look there, or leave it out"
                    raise JudgeKilled(reason) from error
                raise

        content: bytes = await retrying(counted)
        self._patience.is_known = True
        return content

    def _tell(self, state: RetryCallState) -> None:
        """Logs once a minute why requests wait. A busy service is logged only if it answers no request."""
        error = state.outcome.exception() if state.outcome else None
        asked_to_wait = isinstance(error, JudgeUnavailable) and error.retry_after_s is not None
        now = time.monotonic()
        tell_after_s = TELL_EVERY_S if asked_to_wait else TELL_AFTER_S
        if self._patience.quiet_s(state) > tell_after_s and now > self._quiet_until:
            self._quiet_until = now + TELL_EVERY_S
            logger.warning("%s; retrying for up to %.0f s", error, self._patience.longest_s)


def _wait(state: RetryCallState) -> float:
    """Returns the backoff, or the time that the service asked for, extended by up to a half.

    The extension is random, so that clients do not retry at the same moment.
    """
    error = state.outcome.exception() if state.outcome else None
    asked_s = error.retry_after_s if isinstance(error, JudgeUnavailable) else None
    if asked_s is None:
        return backoff(state)
    return max(asked_s, SHORTEST_WAIT_S) * random.uniform(1, 1 + WAIT_SPREAD)  # noqa: S311  no secret
