"""The errors of the service: each becomes an HTTP status and an ErrorBody with a code, a reason and a cure."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from fastapi import Request, Response

from judge_service.front.admission import Closed, Overloaded, TooLate
from unijudge.errors import JudgeDied, JudgeRefused, JudgeUnavailable
from unijudge.judging.protocol import ErrorBody

COMPATIBLE_PATHS = frozenset(
    {
        "/v1/decisions",
        "/v1/systemone",
        "/v2/rerank",
        "/v1/rerank",
        "/rerank",
        "/score",
        "/v1/ranking",
    }
)
"""The routes of other servers, whose clients look for the message of an error in other fields."""
_TYPES = {401: "authentication_error", 429: "rate_limit_error"}


class HttpError(Exception):
    """A whole request cannot be answered. The error becomes an HTTP status and an ErrorBody."""

    is_for_tei = False
    """Whether the client of a compatible route expects the errors of TEI."""

    def __init__(
        self, status: int, code: str, message: str, missing: Sequence[str] = (), *, retry: int = 0
    ):
        """Creates the error.

        Args:
            status: The HTTP status.
            code: The code for programs.
            message: The message for people: what, why, how to fix it.
            missing: The hashes of images that the service does not have.
            retry: Seconds after which a retry makes sense. 0: a retry would not help.
        """
        super().__init__(message)
        self.status = status
        self.body = ErrorBody(code=code, message=message, missing=list(missing))
        self.headers = {"Retry-After": str(retry)} if retry else {}
        if status == 401:
            self.headers["WWW-Authenticate"] = "Bearer"

    def text(self, path: str) -> str:
        """Returns the body of the response, in the words of the route's clients.

        OpenAI, TypeSafe, vLLM and Infinity read `error.message`, Cohere reads `message`, and Jina reads `detail`.

        Example:
            >>> HttpError(429, "busy", "Retry later").text("/v1/rerank")
            '{"error": {"message": "Retry later", "type": "rate_limit_error", "param": null, "code": "busy"}, \
"message": "Retry later", "detail": "Retry later"}'
        """
        if path not in COMPATIBLE_PATHS:
            return self.body.model_dump_json()
        message = self.body.message
        if self.is_for_tei:
            return json.dumps({"error": message, "error_type": self.body.code})
        kind = _TYPES.get(
            self.status, "invalid_request_error" if self.status < 500 else "server_error"
        )
        error = {"message": message, "type": kind, "param": None, "code": self.body.code}
        return json.dumps({"error": error, "message": message, "detail": message})


def judge_died(message: str) -> HttpError:
    """Returns the error of a request that was running when its replica or engine died. The request may be the cause."""
    return HttpError(503, "judge_died", message, retry=1)


@contextmanager
def judge_errors_as_http() -> Iterator[None]:
    """Converts the errors of a judge and of its queue to HttpError."""
    try:
        yield
    except JudgeRefused as error:
        raise HttpError(422, "bad_query", str(error)) from error
    except JudgeDied as error:
        raise judge_died(str(error)) from error
    except JudgeUnavailable as error:
        raise HttpError(503, "not_ready", str(error), retry=1) from error
    except Overloaded as error:
        refusal = HttpError(429, "busy", str(error), retry=error.retry_after_s)
        if error.is_full:
            refusal.headers["Judge-Queue"] = "full"
        raise refusal from error
    except TooLate as error:
        raise HttpError(
            503,
            "too_late",
            f"{error}. Wait longer, send fewer candidates, or add replicas",
            retry=1,
        ) from error
    except Closed as error:
        raise HttpError(
            503, "not_ready", "the service is being stopped. Retry later", retry=1
        ) from error


async def answer_error(request: Request, refusal: Exception) -> Response:
    """Returns the HTTP response of an error."""
    assert isinstance(refusal, HttpError)  # noqa: S101  the handler is only registered for this class
    body = refusal.text(request.url.path)
    return Response(body, refusal.status, refusal.headers, media_type="application/json")
