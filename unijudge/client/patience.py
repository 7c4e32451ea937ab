"""The time limit and the backoff of retries while a service answers no request."""

import time

from tenacity import RetryCallState, wait_random_exponential

NOWHERE_S = 30
"""Seconds of retries for a host name that was never known. Longer settings apply to a service that answered before."""

backoff = wait_random_exponential(multiplier=0.25, max=10)
"""The seconds until the next try. They are random, so that clients do not retry at the same moment."""


class Patience:
    """The time limit for all requests to a service. An answer to any request restarts the time of all."""

    def __init__(self, seconds: float, nowhere: type[Exception]):
        """Starts without an answer.

        Args:
            seconds: The time limit without any answer.
            nowhere: The error class for an unknown host name.
        """
        self._seconds, self._nowhere = seconds, nowhere
        self.answered_at = float("-inf")
        """The time of the last answer, on the clock of `time.monotonic`."""
        self.is_known = False
        """Whether the host name of the service was ever known."""

    def answered(self) -> None:
        """Reports an answer, which restarts the time of all requests."""
        self.answered_at, self.is_known = time.monotonic(), True

    def is_over(self, state: RetryCallState) -> bool:
        """Whether the time limit will have passed at the next try. It is the `stop` of tenacity.

        The limit is shorter for a host name that was never known, because such a name is usually wrong.
        """
        error = state.outcome.exception() if state.outcome else None
        self.is_known = self.is_known or not isinstance(error, self._nowhere)
        return self.quiet_s(state) + state.upcoming_sleep >= self.longest_s

    @property
    def longest_s(self) -> float:
        """Returns the time limit without any answer, in seconds."""
        return self._seconds if self.is_known else min(self._seconds, NOWHERE_S)

    def quiet_s(self, state: RetryCallState) -> float:
        """Returns the seconds that a request has waited without an answer to any request."""
        return time.monotonic() - max(state.start_time, self.answered_at)
