"""How long, and after which waits, the requests to one service are sent again while none of them is answered."""

import time

from tenacity import RetryCallState, wait_random_exponential

NOWHERE_S = 30
"""How long a host is sought whose name was never known; longer settings are for a service that was there."""

backoff = wait_random_exponential(multiplier=0.25, max=10)
"""The time until the next try, in seconds; random, so that clients that were refused together come back apart."""


class Patience:
    """Of all requests to one service: an answer to one of them lets the others go on."""

    def __init__(self, seconds: float, nowhere: type[Exception]):
        """Nothing is answered yet.

        Args:
            seconds: How long to go on while nothing is answered.
            nowhere: The error of a service whose host's name is not known here.
        """
        self._seconds, self._nowhere = seconds, nowhere
        self.answered_at = float("-inf")
        """When a request was last answered, on the clock of `time.monotonic`."""
        self.is_known = False
        """Whether the name of the service's host was known once."""

    def answered(self) -> None:
        """A request was answered: all others have their whole time again."""
        self.answered_at, self.is_known = time.monotonic(), True

    def is_over(self, state: RetryCallState) -> bool:
        """Whether nothing will have been answered for too long when this request comes back: tenacity's `stop`.

        A host whose name was never known is not sought for as long: most often its name is wrong.
        """
        error = state.outcome.exception() if state.outcome else None
        self.is_known = self.is_known or not isinstance(error, self._nowhere)
        return self.quiet_s(state) + state.upcoming_sleep >= self.longest_s

    @property
    def longest_s(self) -> float:
        """How long to go on while nothing is answered."""
        return self._seconds if self.is_known else min(self._seconds, NOWHERE_S)

    def quiet_s(self, state: RetryCallState) -> float:
        """For how long a request has been waiting without an answer to any request."""
        return time.monotonic() - max(state.start_time, self.answered_at)
