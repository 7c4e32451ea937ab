"""HTTP to the judge service: retries, and the mapping of foreign errors. All calls are idempotent.

A try has a single deadline for connecting, sending, and receiving the complete answer. The header `Judge-Timeout` tells
the service this deadline, so that the service need not work for a caller who has left.
"""

import asyncio
from typing import TypeVar

import httpx2
from pydantic import BaseModel, ValidationError

from unijudge.client.concurrency import AdaptiveLimit
from unijudge.client.keys import checked_key
from unijudge.client.retry import Retrying
from unijudge.errors import (
    BlobsMissing,
    InvalidBlob,
    JudgeBroken,
    JudgeBusy,
    JudgeChanged,
    JudgeDied,
    JudgeError,
    JudgeFailed,
    JudgeLate,
    JudgeNowhere,
    JudgeRefused,
    JudgeUnavailable,
    JudgeUncounted,
)
from unijudge.judging.protocol import Answer, ErrorBody
from unijudge.judging.verdicts import JudgeIdentity
from unijudge.provenance import without_passwords
from unijudge.storage.access_errors import in_one_line, spent
from unijudge.storage.files import in_words
from unijudge.storage.reaching import by_way_of, is_nowhere, nowhere, open_http

R = TypeVar("R", bound=BaseModel)
A = TypeVar("A", bound=Answer)

WAY_BACK_S, WAY_BACK_SHARE = 0.5, 0.1
"""The time of a try that is reserved for the way of the answer, in seconds and as the largest share of the timeout."""
JSON, BINARY = "application/json", "application/octet-stream"


class Connection:
    """The connection to a service."""

    def __init__(
        self,
        url: str,
        *,
        key: str | None,
        request_timeout_s: float,
        retry_for_s: float,
        limit: AdaptiveLimit,
        transport: httpx2.AsyncBaseTransport | None,
    ):
        """Takes the arguments of `JudgeClient`. `limit` applies to the requests that a judge must answer."""
        self.url = without_passwords(url)  # for messages
        self._request_timeout_s = request_timeout_s
        self._retrying = Retrying(
            limit, request_timeout_s=request_timeout_s, retry_for_s=retry_for_s
        )
        checked = checked_key(key, "key")
        try:
            self._http = open_http(
                url,
                base_url=url,
                timeout=None,  # `_once` sets a single deadline for the whole try
                # Requests wait for a place of `limit`, before their deadline starts, and never for a connection.
                limits=httpx2.Limits(max_connections=None, max_keepalive_connections=None),
                transport=transport,
                headers={} if checked is None else {"Authorization": f"Bearer {checked}"},
            )
        except httpx2.InvalidURL as error:
            raise JudgeRefused(
                f"{self.url}: not a URL ({error}). Expected http://host:port"
            ) from error

    async def close(self) -> None:
        """Closes the sockets."""
        await self._http.aclose()

    async def get(self, path: str, kind: type[R]) -> R:
        """Reads a resource."""
        content = await self._retrying.call(lambda: self._once("GET", path, b"", {}))
        return self._parsed(path, kind, content)

    async def post(
        self, path: str, kind: type[A], body: bytes, judge: JudgeIdentity, *, alone: bool = False
    ) -> A:
        """Sends JSON to a judge, and refuses an answer of another judge. Waits for a place before sending.

        Args:
            path: The path of the service.
            kind: The class of the answer.
            body: The JSON.
            judge: The judge that must answer.
            alone: Whether the replica must not work on other requests at the same time.

        Raises:
            JudgeKilled: The request killed a replica while it worked on nothing else, or several times.
            JudgeChanged: Another judge is there, or answered. A proxy may have dropped the `If-Match` header.
        """
        headers = {"Content-Type": JSON, "If-Match": f'"{judge.digest}"'}
        if alone:
            headers["Judge-Alone"] = "1"
        content = await self._retrying.question(
            lambda: self._once("POST", path, body, headers), alone=alone
        )
        answer = self._parsed(path, kind, content)
        if answer.identity != judge:
            raise JudgeChanged(
                f"{self.url}{path}: asked {judge}, but {judge.difference(answer.identity)}. Connect without the proxy "
                "in between, or start again with the other judge"
            )
        return answer

    async def put(self, path: str, body: bytes, *, retry_for_s: float) -> None:
        """Stores a resource."""
        headers = {"Content-Type": BINARY}
        await self._retrying.call(lambda: self._once("PUT", path, body, headers), retry_for_s)

    async def _once(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> bytes:
        """Makes a single try: connects, sends, and receives the complete answer within `request_timeout_s`."""
        timeout_s = self._request_timeout_s
        there_s = timeout_s - min(WAY_BACK_S, WAY_BACK_SHARE * timeout_s)
        try:
            async with asyncio.timeout(timeout_s):
                response = await self._http.request(
                    method, path, content=body, headers=headers | {"Judge-Timeout": f"{there_s:g}"}
                )
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
            raise JudgeRefused(
                f"{self.url}: not a URL ({error}). Expected http://host:port"
            ) from error
        except TimeoutError as error:
            raise JudgeLate(
                f"{self.url}{path}: no complete answer within {timeout_s:g} s. Raise request_timeout_s, or send fewer "
                "candidates per query"
            ) from error
        except httpx2.TransportError as error:
            if is_nowhere(error):
                raise JudgeNowhere(nowhere(self.url, error)) from error
            way = by_way_of(self.url)
            cure = "Start one with `unijudge judge serve`, or correct the URL"
            if way:
                cure = "Set NO_PROXY to connect without the proxy"
            if lacking := spent(error):
                raise JudgeUnavailable(
                    f"{self.url}: this machine cannot send a request ({in_one_line(error)}). {lacking}"
                ) from error
            raise JudgeUnavailable(
                f"{self.url}: no judge answers there{way} ({in_one_line(error)}). {cure}"
            ) from error
        except httpx2.RequestError as error:  # a damaged answer, or too many redirects
            raise JudgeUnavailable(
                f"{self.url}{path}: its answer cannot be read ({in_one_line(error)}). Check the proxies in between"
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
                f"{self.url}{path}: the answer is not a {in_words(kind)} ({error.errors()[0]['msg']}). Check that this "
                "URL is a judge service of the same version"
            ) from error

    def _refusal(self, path: str, response: httpx2.Response) -> JudgeError:
        try:
            body = ErrorBody.model_validate_json(response.content)
        except ValidationError:
            body = ErrorBody(
                code="unknown",
                message=" ".join(response.text.split())[:200] or response.reason_phrase,
            )
        message = f"{self.url}{path}: {response.status_code}: {body.message}"
        if body.code in ("unknown_blobs", "no_blobs"):
            missing = BlobsMissing(message)
            missing.names = body.missing
            return missing
        if body.code == "bad_blob":
            return InvalidBlob(message)
        if body.code == "no_tokens":
            return JudgeUncounted(message)
        if response.status_code == 412:
            return JudgeChanged(message)
        if response.status_code in (400, 413, 422):
            return JudgeRefused(message)
        unavailable = _unavailable(path, response.status_code, body.code)
        if unavailable is not None:
            error = unavailable(message)
            error.retry_after_s = _seconds(response.headers.get("Retry-After"))
            return error
        if body.code == "no_room":
            return JudgeError(message)
        # No request can succeed, not only this one.
        return JudgeError(f"{message}. Check the URL and the key")


def _unavailable(path: str, status: int, code: str) -> type[JudgeUnavailable] | None:
    """Returns the class of a refusal that may be retried, else None."""
    if code == "internal":
        return JudgeFailed
    if code == "judge_died":
        return JudgeDied
    if code == "too_late" or status in (408, 504):
        return JudgeLate
    if status in (429, 503):
        return JudgeBusy
    # A judge answered before. A service that does not know the path now is being stopped or started.
    is_gone = status == 404 and code == "unknown" and path != "/v1/identity"
    is_broken = status >= 500 and code != "no_room"
    return JudgeUnavailable if is_gone or is_broken else None


def _seconds(header: str | None) -> float | None:
    try:
        return max(0.0, float(header)) if header else None
    except ValueError:  # an HTTP date, which is rare; the backoff is used instead
        return None
