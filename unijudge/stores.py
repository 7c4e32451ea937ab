"""The one policy for what a store refuses once: it is asked again, a few times. A disk is asked once.

An object store answers over a network, and is busy at times. What is not there, or forbidden, stays so: that is final.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from unijudge.locations import is_local
from unijudge.provenance import without_passwords
from unijudge.refused import in_one_line, may_pass

TRIES = 5
LONGEST_WAIT_S = 8.0

T = TypeVar("T")

logger = logging.getLogger(__name__)


def again(place: Path, once: Callable[[], T]) -> T:
    """What `once` returns; for a place in a store it is called again where its error may pass.

    Args:
        place: What is read or written.
        once: Reads or writes it, as a whole: calling it twice must do no harm.

    Raises:
        Exception: What `once` raised last.
    """
    if is_local(place):
        return once()

    def tell(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if error is not None and state.attempt_number > 1:  # once is nothing to speak of
            logger.warning("%s: asked again: %s", place, without_passwords(in_one_line(error)))

    retrying = Retrying(
        stop=stop_after_attempt(TRIES),
        wait=wait_random_exponential(multiplier=0.5, max=LONGEST_WAIT_S),
        retry=retry_if_exception(may_pass),
        before_sleep=tell,
        reraise=True,
    )
    return retrying(once)
