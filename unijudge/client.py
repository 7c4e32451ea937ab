"""The judge service as a `Judge`: splits large queries, retries what can be retried, maps every foreign error once.

It never opens an image for you and never scores twice what was answered. Idempotent: a retry asks the same question.
"""

import asyncio
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self, TypeVar

import httpx2
from pydantic import BaseModel, ValidationError
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_delay, wait_random_exponential

from unijudge.corpus import Content
from unijudge.errors import JudgeBroken, JudgeChanged, JudgeError, JudgeRefused, JudgeUnavailable
from unijudge.verdicts import JudgeIdentity, PairError, Verdict
from unijudge.wire import ErrorBody, ScoreResponse, ServiceInfo, WireContent

R = TypeVar("R", bound=BaseModel)


class JudgeClient:
    """Scores pairs over HTTP.

        async with JudgeClient("http://127.0.0.1:8000") as judge:
            answers = await judge.judge(Content(text="a cat"), [Content(image=data)])

    On entry it asks the service who it is; from then on every request is pinned to that judge (`If-Match`), so no
    answer of another one can slip in.
    """

    def __init__(
        self,
        url: str,
        *,
        expect: JudgeIdentity | None = None,
        key: str | None = None,
        request_timeout_s: float = 120,
        retry_for_s: float = 300,
        transport: httpx2.AsyncBaseTransport | None = None,
    ):
        """Opens nothing yet.

        Args:
            url: Where the service listens, as in `http://127.0.0.1:8000`.
            expect: Refuse any other judge than this one.
            key: The bearer key, where the service wants one.
            request_timeout_s: How long one request may take.
            retry_for_s: How long to go on trying while the service is busy or away.
            transport: In the place of the network, for tests: an in-process application, say.
        """
        self._url = url
        self._expect = expect
        self._retry_for_s = retry_for_s
        try:
            self._http = httpx2.AsyncClient(
                base_url=url,
                timeout=request_timeout_s,
                transport=transport,
                headers={"Authorization": f"Bearer {key}"} if key else {},
            )
        except httpx2.InvalidURL as error:
            raise JudgeRefused(f"{url}: not a URL ({error}); expected http://host:port") from error
        self._info: ServiceInfo | None = None

    async def __aenter__(self) -> Self:
        """Asks the service who it is.

        Raises:
            JudgeUnavailable: Nobody answered in time.
            JudgeChanged: It is not the expected judge.
        """
        try:
            info = await self._call("GET", "/v1/identity", ServiceInfo)
        except BaseException:
            await self._http.aclose()
            raise
        if self._expect is not None and info.identity != self._expect:
            await self._http.aclose()
            raise JudgeChanged(f"{self._url}: expected {self._expect}, but {_difference(self._expect, info.identity)}")
        self._info = info
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    @property
    def info(self) -> ServiceInfo:
        """Who judges, and within which limits; known once the client is entered."""
        if self._info is None:
            raise JudgeBroken("JudgeClient: use it as `async with JudgeClient(url) as judge:`")
        return self._info

    @property
    def identity(self) -> JudgeIdentity:
        """Who judges."""
        return self.info.identity

    async def judge(self, query: Content, candidates: Sequence[Content]) -> list[Verdict | PairError]:
        """One answer for each candidate, in order. A query too large for one request becomes several.

        Raises:
            JudgeRefused: The query itself cannot be judged.
            JudgeUnavailable: Busy or away for longer than `retry_for_s`.
            JudgeChanged: Another judge answered.
            JudgeBroken: The answer is not one for each candidate.
        """
        limits = self.info.limits
        head = b'{"query":' + _encode(query) + b',"candidates":['
        room = limits.max_body_bytes - len(head) - len(b"]}")
        if room < 0:
            raise JudgeRefused(f"the query is larger than a request may be ({limits.max_body_bytes} bytes)")
        encoded = [_encode(candidate) for candidate in candidates]
        answers: list[Verdict | PairError] = []
        for chunk in _chunks(encoded, limits.max_candidates, room):
            if len(chunk) == 1 and len(chunk[0]) > room:
                message = f"{len(chunk[0])} bytes with its query; a request takes {limits.max_body_bytes}"
                answers.append(PairError(code="too_large", message=message))
                continue
            body = head + b",".join(chunk) + b"]}"
            response = await self._call("POST", "/v1/score", ScoreResponse, body)
            if len(response.results) != len(chunk):
                raise JudgeBroken(
                    f"{self._url}: {len(chunk)} candidates sent, {len(response.results)} answers returned; the service "
                    "and this client disagree on /v1/score: run the same version on both sides"
                )
            answers += response.results
        return answers

    async def _call(self, method: str, path: str, kind: type[R], body: bytes | None = None) -> R:
        retrying = AsyncRetrying(
            stop=stop_after_delay(self._retry_for_s),
            wait=_wait,
            retry=retry_if_exception(lambda error: isinstance(error, JudgeError) and error.retryable),
            reraise=True,
        )
        return await retrying(self._call_once, method, path, kind, body)

    async def _call_once(self, method: str, path: str, kind: type[R], body: bytes | None) -> R:
        headers = {"If-Match": f'"{self._info.digest}"'} if self._info else {}
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            response = await self._http.request(method, path, content=body, headers=headers)
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
            raise JudgeRefused(f"{self._url}: not a URL ({error}); expected http://host:port") from error
        except httpx2.ReadTimeout as error:
            raise JudgeUnavailable(
                f"{self._url}{path}: no answer in time; raise request_timeout_s, or send fewer queries at once"
            ) from error
        except httpx2.TransportError as error:
            raise JudgeUnavailable(
                f"{self._url}: no judge answers there ({type(error).__name__}: {error}); start one with "
                "`unijudge judge serve`, or correct the URL"
            ) from error
        if response.is_success:
            try:
                return kind.model_validate_json(response.content)
            except ValidationError as error:
                raise JudgeBroken(
                    f"{self._url}{path}: answered something else than a {kind.__name__} "
                    f"({error.errors()[0]['msg']}); is this URL a judge service of the same version?"
                ) from error
        raise self._refusal(path, response)

    def _refusal(self, path: str, response: httpx2.Response) -> JudgeError:
        try:
            reason = ErrorBody.model_validate_json(response.content).message
        except ValidationError:
            reason = response.text[:200].strip() or response.reason_phrase
        message = f"{self._url}{path}: {response.status_code}: {reason}"
        if response.status_code == 412:
            return JudgeChanged(message)
        if response.status_code in (408, 429) or response.status_code >= 500:
            error = JudgeUnavailable(message)
            error.retry_after_s = _seconds(response.headers.get("Retry-After"))
            return error
        if response.status_code in (400, 413, 422):
            return JudgeRefused(message)
        return JudgeError(f"{message}; check the URL and the key")  # nothing about this request: no other would pass


def judge_now(
    url: str, query: Content, candidates: Sequence[Content], *, key: str | None = None
) -> list[Verdict | PairError]:
    """Scores one query's candidates from code that is not asynchronous. See `JudgeClient.judge`."""

    async def once() -> list[Verdict | PairError]:
        async with JudgeClient(url, key=key) as judge:
            return await judge.judge(query, candidates)

    return asyncio.run(once())


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


def _encode(content: Content) -> bytes:
    return WireContent.of(content).model_dump_json(exclude_none=True).encode()


def _chunks(encoded: Sequence[bytes], most: int, room: int) -> Iterator[Sequence[bytes]]:
    """Cuts candidates, in order, into requests; one that is too large for any request comes alone."""
    start = used = 0
    for place, candidate in enumerate(encoded):
        if place > start and (place - start == most or used + len(candidate) > room):
            yield encoded[start:place]
            start, used = place, 0
        used += len(candidate) + len(b",")
    if start < len(encoded):
        yield encoded[start:]


def _difference(expected: JudgeIdentity, found: JudgeIdentity) -> str:
    pairs = [
        f"{name} is {after!r}, not {before!r}"
        for (name, before), (_, after) in zip(expected, found, strict=True)
        if before != after
    ]
    return f"{found} answers: " + "; ".join(pairs)
