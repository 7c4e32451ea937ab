"""The one policy for what a store refuses once: it is asked again, a few times. A disk is asked once.

An object store answers over a network, and is busy at times. What is not there, or forbidden, stays so: that is final.
Whether something is there is asked here alone: a store that does not answer has not said that nothing is.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from unijudge.provenance import without_passwords
from unijudge.storage.access_errors import in_one_line, may_pass, unreadable
from unijudge.storage.locations import is_local

FORBIDDEN = (401, 403, 407)
"""What web servers answer who must not look; their library says that nothing is there."""
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


def exists(place: Path) -> bool:
    """Whether anything is there, on a disk or in a store.

    Raises:
        DataError: The disk or the store did not say: neither that it is there, nor that it is not.
    """
    return _kind(place) is not None


def is_file(place: Path) -> bool:
    """Whether a file is there; as `exists`."""
    return _kind(place) == "file"


def is_folder(place: Path) -> bool:
    """Whether a folder is there; as `exists`."""
    return _kind(place) == "directory"


def _kind(place: Path) -> str | None:
    """What is there, in fsspec's words; None for nothing."""
    store: Any = place
    try:
        if not is_local(place):
            kind = str(again(place, lambda: store.fs.info(store.path))["type"])
            return "directory" if kind == "file" and _is_page(store) else kind
        if place.is_dir():
            return "directory"
        return "file" if place.is_file() else "other" if place.exists() else None
    except (FileNotFoundError, NotADirectoryError) as error:
        cause = error.__cause__
        if getattr(cause, "status", None) in FORBIDDEN:
            raise unreadable(place, PermissionError(str(cause))) from error
        if may_pass(error):
            raise unreadable(place, cause if isinstance(cause, Exception) else error) from error
        return None
    except Exception as error:  # each store has its own family of errors
        raise unreadable(place, error) from error


def _is_page(store: Any) -> bool:
    """Whether a place on the web is a page with links to what lies there, as servers list a folder."""
    return str(store.path).startswith("http") and not store.suffix and bool(store.fs.isdir(store.path))
