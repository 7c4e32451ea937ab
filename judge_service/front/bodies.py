"""The JSON of a request: looked at before it is parsed, since a small body can hold millions of objects."""

from collections.abc import Sequence

from pydantic import ValidationError

from judge_service.front.errors import HttpError
from judge_service.settings import LimitSettings
from unijudge.content import Content
from unijudge.judging.protocol import ScoreRequest

MARKS_IN_CONTENT = 8
"""Commas, brackets and braces of one query or candidate: it has at most three fields."""
PICTURE_WORK = 2000
"""A picture is counted as so many characters of text: about 500 tokens."""
PAIR_WORK = 400
"""What every pair costs beside its contents: the words of the question."""


def read_request(body: bytes, limits: LimitSettings) -> ScoreRequest:
    """Parses a body.

    Raises:
        HttpError: It has too many candidates, or is not a request.
    """
    _check_size(body, limits.max_candidates)
    try:
        request = ScoreRequest.model_validate_json(body)
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, fault["loc"])) or "body"
        raise HttpError(400, "bad_request", f"{where}: {fault['msg']}"[:300]) from error
    if len(request.candidates) > limits.max_candidates:
        message = f"{len(request.candidates)} candidates; one request takes {limits.max_candidates}"
        raise HttpError(413, "too_large", message)
    return request


def work_of(query: Content, candidates: Sequence[Content]) -> float:
    """How much there is to do, in characters of text: what a request waits behind is the sum of these.

    Siblings share the work of their query.

    Example:
        >>> work_of(Content("a red fox"), [Content("a fox"), Content(image=b"...")])
        2814
    """
    return _characters(query) + sum(PAIR_WORK + _characters(candidate) for candidate in candidates)


def _characters(content: Content) -> int:
    return len(content.text or "") + PICTURE_WORK * (content.image is not None)


def _check_size(body: bytes, max_candidates: int) -> None:
    """Refuses a body with more structure than the largest request has.

    Only what stands outside of strings is counted, and the search stops at the first mark too many.
    """
    most = MARKS_IN_CONTENT * (max_candidates + 2)
    # Without its escapes, a string ends at the next quote.
    plain = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    marks, place = 0, 0
    while place < len(plain):
        quote = plain.find(b'"', place)
        end = len(plain) if quote < 0 else quote
        marks += sum(plain.count(mark, place, end) for mark in (b",", b"{", b"["))
        if marks > most:
            message = f"more objects and fields than a request of {max_candidates} candidates has; send fewer"
            raise HttpError(413, "too_large", message)
        closing = plain.find(b'"', quote + 1) if quote >= 0 else -1
        place = closing + 1 if closing >= 0 else len(plain)
