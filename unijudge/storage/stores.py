"""The retry policy for object stores: temporary errors are retried a few times. A disk is never retried.

An object store answers over a network, and is busy at times. A missing or forbidden file is a final error. All checks
for existence are here, because a store that does not answer has not reported a missing file.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    wait_random_exponential,
)

from unijudge.provenance import without_passwords
from unijudge.storage.access_errors import in_one_line, may_pass, unreadable
from unijudge.storage.locations import is_local

FORBIDDEN = (401, 403, 407)
"""HTTP statuses for a refused access. The library reports them as missing files."""
TRIES = 5
LONGEST_WAIT_S = 8.0

T = TypeVar("T")

logger = logging.getLogger(__name__)


def again(place: Path, once: Callable[[], T]) -> T:
    """Returns the result of `once`. For a location in a store, temporary errors are retried.

    Args:
        place: The location that is read or written.
        once: A function that reads or writes the whole location, and may be called several times.

    Raises:
        Exception: The last error of `once`.
    """
    if is_local(place):
        return once()

    def tell(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if error is not None and state.attempt_number > 1:  # a single failure is normal
            logger.warning("%s: retrying: %s", place, without_passwords(in_one_line(error)))

    retrying = Retrying(
        stop=stop_after_attempt(TRIES),
        wait=wait_random_exponential(multiplier=0.5, max=LONGEST_WAIT_S),
        retry=retry_if_exception(may_pass),
        before_sleep=tell,
        reraise=True,
    )
    return retrying(once)


def exists(place: Path) -> bool:
    """Whether a location exists, on a disk or in a store.

    Raises:
        DataError: The disk or the store did not answer, so it is not known whether the location exists.
    """
    return _kind(place) is not None


def is_file(place: Path) -> bool:
    """Whether a location is a file; raises the errors of `exists`."""
    return _kind(place) == "file"


def is_folder(place: Path) -> bool:
    """Whether a location is a folder; raises the errors of `exists`."""
    return _kind(place) == "directory"


def _kind(place: Path) -> str | None:
    """Returns the kind of a location, in fsspec's words, or None if it does not exist."""
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
    """Whether a web location is a page of links, by which a server lists a folder."""
    return (
        str(store.path).startswith("http") and not store.suffix and bool(store.fs.isdir(store.path))
    )
