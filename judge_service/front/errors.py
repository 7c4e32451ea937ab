"""How the service says no: each refusal is an HTTP status and an ErrorBody with a code, a reason and a cure."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from fastapi import Request, Response

from judge_service.front.admission import Closed, Overloaded, TooLate
from unijudge.errors import JudgeDied, JudgeRefused, JudgeUnavailable
from unijudge.judging.protocol import ErrorBody


class HttpError(Exception):
    """A request as a whole cannot be answered: becomes an HTTP status and an ErrorBody."""

    def __init__(self, status: int, code: str, message: str, missing: Sequence[str] = (), *, retry: int = 0):
        """A refusal.

        Args:
            status: Of HTTP.
            code: For programs.
            message: For people: what, why, how to fix it.
            missing: The images that are not here.
            retry: When the same request may be answered, in seconds; 0: there is no such time.
        """
        super().__init__(message)
        self.status = status
        self.body = ErrorBody(code=code, message=message, missing=list(missing))
        self.headers = {"Retry-After": str(retry)} if retry else {}
        if status == 401:
            self.headers["WWW-Authenticate"] = "Bearer"


def judge_died(message: str) -> HttpError:
    """Of a request that was in work when its replica or engine ended: it may be why."""
    return HttpError(503, "judge_died", message, retry=1)


@contextmanager
def judge_errors_as_http() -> Iterator[None]:
    """What a judge and its queue raise, as the service says it."""
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
            503, "too_late", f"{error}. Wait longer, send fewer candidates, or add replicas", retry=1
        ) from error
    except Closed as error:
        raise HttpError(503, "not_ready", "the service is being stopped. Come back later", retry=1) from error


async def answer_error(_: Request, refusal: Exception) -> Response:
    """Answers with a refusal."""
    assert isinstance(refusal, HttpError)  # noqa: S101  what this handler is registered for
    body = refusal.body.model_dump_json()
    return Response(body, refusal.status, refusal.headers, media_type="application/json")
