"""HTTP to the judge service: retries what can be retried, and maps every foreign error once. Idempotent calls only."""

import logging
import time
from typing import TypeVar

import httpx2
from pydantic import BaseModel, ValidationError
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_delay, wait_random_exponential

from unijudge.errors import (
    BlobRefused,
    BlobsMissing,
    JudgeBroken,
    JudgeChanged,
    JudgeError,
    JudgeFailed,
    JudgeRefused,
    JudgeUnavailable,
    JudgeUncounted,
)
from unijudge.files import in_words
from unijudge.keys import checked_key
from unijudge.provenance import without_passwords
from unijudge.verdicts import JudgeIdentity
from unijudge.wire import Answer, ErrorBody

R = TypeVar("R", bound=BaseModel)
A = TypeVar("A", bound=Answer)

logger = logging.getLogger(__name__)

TELL_AFTER_S, TELL_EVERY_S = 3, 60
FAILED_TRIES = 3
"""How often a request is sent on which the service itself fails; then it is a refusal, and other requests go on."""
JSON, BINARY = "application/json", "application/octet-stream"


class Connection:
    """One service."""

    def __init__(
        self,
        url: str,
        *,
        key: str | None,
        request_timeout_s: float,
        retry_for_s: float,
        transport: httpx2.AsyncBaseTransport | None,
    ):
        """See `JudgeClient`."""
        self.url = without_passwords(url)  # for messages
        self._retry_for_s = retry_for_s
        self._quiet_until = float("-inf")
        checked = checked_key(key, "key")
        try:
            self._http = httpx2.AsyncClient(
                base_url=url,
                timeout=request_timeout_s,
                transport=transport,
                headers={} if checked is None else {"Authorization": f"Bearer {checked}"},
            )
        except httpx2.InvalidURL as error:
            raise JudgeRefused(f"{self.url}: not a URL ({error}); expected http://host:port") from error

    async def close(self) -> None:
        """Lets go of the sockets."""
        await self._http.aclose()

    async def get(self, path: str, kind: type[R]) -> R:
        """Reads a resource."""
        return self._parsed(path, kind, await self._retrying("GET", path, b"", {}))

    async def post(self, path: str, kind: type[A], body: bytes, judge: JudgeIdentity) -> A:
        """Sends JSON to one judge, and takes an answer from no other.

        Raises:
            JudgeChanged: Another one is there, or answered: what stands between may drop the pin.
        """
        headers = {"Content-Type": JSON, "If-Match": f'"{judge.digest}"'}
        answer = self._parsed(path, kind, await self._retrying("POST", path, body, headers))
        if answer.identity != judge:
            raise JudgeChanged(
                f"{self.url}{path}: asked {judge}, but {judge.difference(answer.identity)}. Ask without what stands "
                "between, or begin anew with that judge"
            )
        return answer

    async def put(self, path: str, body: bytes, *, retry_for_s: float) -> None:
        """Stores a resource."""
        await self._retrying("PUT", path, body, {"Content-Type": BINARY}, min(retry_for_s, self._retry_for_s))

    async def _retrying(
        self, method: str, path: str, body: bytes, headers: dict[str, str], retry_for_s: float | None = None
    ) -> bytes:
        retrying = AsyncRetrying(
            stop=stop_after_delay(self._retry_for_s if retry_for_s is None else retry_for_s),
            wait=_wait,
            retry=retry_if_exception(lambda error: isinstance(error, JudgeError) and error.retryable),
            before_sleep=self._tell,
            reraise=True,
        )
        failed = 0

        async def once() -> bytes:
            nonlocal failed
            try:
                return await self._once(method, path, body, headers)
            except JudgeFailed as error:
                failed += 1
                if failed == FAILED_TRIES:
                    reason = f"{error}. It was sent {failed} times; look there, or leave it out"
                    raise JudgeRefused(reason) from error
                raise

        return await retrying(once)

    def _tell(self, state: RetryCallState) -> None:
        """Says, once a minute, for what a person waits."""
        error = state.outcome.exception() if state.outcome else None
        asked_to_wait = isinstance(error, JudgeUnavailable) and error.retry_after_s is not None
        now = time.monotonic()
        if not asked_to_wait and (state.seconds_since_start or 0) > TELL_AFTER_S and now > self._quiet_until:
            self._quiet_until = now + TELL_EVERY_S
            logger.warning("%s; trying on for up to %.0f s", error, self._retry_for_s)

    async def _once(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> bytes:
        try:
            response = await self._http.request(method, path, content=body, headers=headers)
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
            raise JudgeRefused(f"{self.url}: not a URL ({error}); expected http://host:port") from error
        except httpx2.ReadTimeout as error:
            raise JudgeUnavailable(
                f"{self.url}{path}: no answer in time; raise request_timeout_s, or send fewer queries at once"
            ) from error
        except httpx2.TransportError as error:
            raise JudgeUnavailable(
                f"{self.url}: no judge answers there ({type(error).__name__}: {error}); start one with "
                "`unijudge judge serve`, or correct the URL"
            ) from error
        if response.is_success:
            content: bytes = response.content
            return content
        raise self._refusal(path, response)

    def _parsed(self, path: str, kind: type[R], content: bytes) -> R:
        try:
            return kind.model_validate_json(content)
        except ValidationError as error:
            raise JudgeBroken(
                f"{self.url}{path}: answered something else than a {in_words(kind)} "
                f"({error.errors()[0]['msg']}); is this URL a judge service of the same version?"
            ) from error

    def _refusal(self, path: str, response: httpx2.Response) -> JudgeError:
        try:
            body = ErrorBody.model_validate_json(response.content)
        except ValidationError:
            body = ErrorBody(code="unknown", message=" ".join(response.text.split())[:200] or response.reason_phrase)
        message = f"{self.url}{path}: {response.status_code}: {body.message}"
        if body.code in ("unknown_blobs", "no_blobs"):
            missing = BlobsMissing(message)
            missing.names = body.missing
            return missing
        if body.code == "bad_blob":
            return BlobRefused(message)
        if body.code == "no_tokens":
            return JudgeUncounted(message)
        if response.status_code == 412:
            return JudgeChanged(message)
        if response.status_code in (400, 413, 422):
            return JudgeRefused(message)
        busy = response.status_code in (408, 429) or (response.status_code >= 500 and body.code != "no_room")
        gone = response.status_code == 404 and body.code == "unknown" and path != "/v1/identity"
        if busy or gone:  # a judge answered on entry: what knows no such path now is being stopped, or started again
            error = (JudgeFailed if body.code == "internal" else JudgeUnavailable)(message)
            error.retry_after_s = _seconds(response.headers.get("Retry-After"))
            return error
        return JudgeError(f"{message}; check the URL and the key")  # nothing about this request: no other would pass


_backoff = wait_random_exponential(multiplier=0.25, max=10)


def _wait(state: RetryCallState) -> float:
    """What the service asked for (`Retry-After`), and never less than the backoff: clients must not return at once."""
    error = state.outcome.exception() if state.outcome else None
    return max(_backoff(state), (error.retry_after_s or 0.0) if isinstance(error, JudgeUnavailable) else 0.0)


def _seconds(header: str | None) -> float | None:
    try:
        return min(60.0, max(0.0, float(header))) if header else None
    except ValueError:  # an HTTP date: rare, and the backoff serves as well
        return None
