"""Parses the JSON of a request. The structure is checked first, since a small body can contain millions of objects."""

from collections.abc import Sequence
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from judge_service.front.errors import HttpError
from judge_service.settings import LimitSettings
from unijudge.content import Content
from unijudge.judging.protocol import ScoreRequest

B = TypeVar("B", bound=BaseModel)

MARKS_IN_CONTENT = 8
"""The largest number of commas, brackets and braces of a query or candidate, which has at most three fields."""
PICTURE_WORK = 2000
"""The work of a picture, in characters of text: about 500 tokens."""
PAIR_WORK = 400
"""The work of a pair in addition to its contents, in characters of text: the words of the question."""


def read_request(body: bytes, limits: LimitSettings) -> ScoreRequest:
    """Parses a body.

    Raises:
        HttpError: The body has too many candidates, or is not a valid request.
    """
    most_marks = MARKS_IN_CONTENT * (limits.max_candidates + 2)
    request = read_json(body, ScoreRequest, most_marks, status=400)
    if len(request.candidates) > limits.max_candidates:
        message = f"{len(request.candidates)} candidates: a request may have {limits.max_candidates}. Send fewer"
        raise HttpError(413, "too_large", message)
    return request


def read_json(body: bytes, kind: type[B], most_marks: int, *, status: int) -> B:
    """Parses a body as a model.

    Args:
        body: The bytes of the body.
        kind: The class of the model.
        most_marks: The largest number of commas, brackets and braces outside of strings.
        status: The HTTP status for a body that is not a valid model.

    Raises:
        HttpError: The body has too many marks, or is not a valid model.
    """
    _check_size(body, most_marks)
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, fault["loc"])) or "body"
        raise HttpError(status, "bad_request", f"{where}: {fault['msg']}"[:300]) from error


def work_of(query: Content, candidates: Sequence[Content]) -> float:
    """Returns the work of a request, in characters of text. The queue estimates waiting times from this number.

    The candidates share the work of their query.

    Example:
        >>> work_of(Content("a red fox"), [Content("a fox"), Content(image=b"...")])
        2814
    """
    return _characters(query) + sum(PAIR_WORK + _characters(candidate) for candidate in candidates)


def _characters(content: Content) -> int:
    return len(content.text or "") + PICTURE_WORK * (content.image is not None)


def _check_size(body: bytes, most_marks: int) -> None:
    """Rejects a body with more objects and fields than the largest request.

    Only marks outside of strings count. The search stops as soon as there are too many marks.
    """
    # Without its escapes, a string ends at the next quote.
    plain = body.replace(b"\\\\", b"").replace(b'\\"', b"")

    marks, start = 0, 0
    while start < len(plain):
        # Count the marks before the next string.
        quote = plain.find(b'"', start)
        end = len(plain) if quote < 0 else quote
        marks += sum(plain.count(mark, start, end) for mark in (b",", b"{", b"["))
        if marks > most_marks:
            message = "the body has more fields than the largest request. Send fewer candidates"
            raise HttpError(413, "too_large", message)

        # Continue after this string.
        closing = plain.find(b'"', quote + 1) if quote >= 0 else -1
        start = closing + 1 if closing >= 0 else len(plain)
