"""How the service says no: each refusal is an HTTP status and an ErrorBody with a code, a reason and a cure."""

import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager

from fastapi import Request, Response
from fastapi.responses import JSONResponse

from judge_service.auth import is_allowed
from unijudge.errors import JudgeRefused, JudgeUnavailable
from unijudge.wire import ErrorBody

logger = logging.getLogger(__name__)

Next = Callable[[Request], Awaitable[Response]]
"""What handles a request that may pass."""


class Refusal(Exception):
    """A request as a whole cannot be answered: becomes an HTTP status and an ErrorBody."""

    def __init__(self, status: int, code: str, message: str, missing: Sequence[str] = ()):
        super().__init__(message)
        self.status = status
        self.body = ErrorBody(code=code, message=message, missing=list(missing))


@contextmanager
def refusals() -> Iterator[None]:
    """What a judge raises, as the service says it."""
    try:
        yield
    except JudgeRefused as error:
        raise Refusal(422, "bad_query", str(error)) from error
    except JudgeUnavailable as error:
        raise Refusal(503, "not_ready", str(error)) from error


async def refuse(_: Request, refusal: Exception) -> Response:
    """Answers with a refusal; the judge may be there again in a second."""
    assert isinstance(refusal, Refusal)  # noqa: S101  what this handler is registered for
    headers = {"Retry-After": "1"} if refusal.status == 503 else {}
    return JSONResponse(refusal.body.model_dump(), refusal.status, headers)


def border(key_sha256: Sequence[str]) -> Callable[[Request, Next], Awaitable[Response]]:
    """What every request passes: no answer without a key, and our own faults are logged, not told."""

    async def pass_or_refuse(http: Request, call: Next) -> Response:
        if not is_allowed(http.scope["path"], http.headers.get("Authorization"), key_sha256):
            body = ErrorBody(code="no_key", message="this service wants a key: Authorization: Bearer KEY")
            return JSONResponse(body.model_dump(), 401, {"WWW-Authenticate": "Bearer"})
        try:
            return await call(http)
        except Exception:
            logger.exception("%s %s failed", http.method, http.url.path)
            body = ErrorBody(code="internal", message="the judge failed on this request; its log says why")
            return JSONResponse(body.model_dump(), 500)

    return pass_or_refuse
