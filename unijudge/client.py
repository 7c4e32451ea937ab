"""The judge service as a `Judge`: splits large queries, and sends each image once.

It never opens an image for you and never scores twice what was answered. Idempotent: a retry asks the same question.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Self, TypeVar

import httpx2

from unijudge.connection import Connection
from unijudge.corpus import Content
from unijudge.cost import ModelShape, TokenCount
from unijudge.errors import BlobRefused, BlobsMissing, JudgeBroken, JudgeChanged, JudgeError, JudgeRefused
from unijudge.parts import Part, body_of
from unijudge.verdicts import JudgeIdentity, PairError, Verdict
from unijudge.wire import CountResponse, ScoreResponse, ServiceInfo

BLOB_ROUNDS = 3
"""How often a request is sent while the service goes on losing its images; the last time they travel inside it."""
UPLOADS_AT_ONCE = 8
UPLOAD_RETRY_S = 10
REMEMBERED_UPLOADS = 4096
INSIDE_S = 30
"""How long no image is named after one could not be kept, whatever the reason: it is never a reason to lose a pair."""

logger = logging.getLogger(__name__)

R = TypeVar("R", ScoreResponse, CountResponse)


class JudgeClient:
    """Scores pairs over HTTP.

        async with JudgeClient("http://127.0.0.1:8000") as judge:
            answers = await judge.judge(Content(text="a cat"), [Content(image=data)])

    On entry it asks the service who it is; from then on every request is pinned to that judge (`If-Match`), so no
    answer of another one can slip in. Images are named by their hashes; what the service lacks is sent once.
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
            key: The bearer key, where the service wants one (`read_key` takes it from a file).
            request_timeout_s: How long one request may take.
            retry_for_s: How long to go on trying while the service is busy or away.
            transport: In the place of the network, for tests: an in-process application, say.

        Raises:
            SettingsError: The key is blank, or can be none.
            JudgeRefused: The URL is none.
        """
        self._connection = Connection(
            url, key=key, request_timeout_s=request_timeout_s, retry_for_s=retry_for_s, transport=transport
        )
        self._expect = expect
        self._info: ServiceInfo | None = None
        self._counted: CountResponse | None = None  # the latest: it knows the shape
        self._uploads: dict[str, asyncio.Task[bool]] = {}  # in work
        self._stored_at: dict[str, float] = {}
        self._upload_slots = asyncio.Semaphore(UPLOADS_AT_ONCE)
        self._inside_until = float("-inf")

    async def __aenter__(self) -> Self:
        """Asks the service who it is.

        Raises:
            JudgeUnavailable: Nobody answered in time.
            JudgeChanged: It is not the expected judge.
        """
        try:
            info = await self._connection.get("/v1/identity", ServiceInfo)
            if self._expect is not None and info.identity != self._expect:
                difference = _difference(self._expect, info.identity)
                raise JudgeChanged(f"{self._connection.url}: expected {self._expect}, but {difference}")
        except BaseException:
            await self._connection.close()
            raise
        self._info = info
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for upload in list(self._uploads.values()):
            upload.cancel()
        await self._connection.close()

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
        answers: list[Verdict | PairError] = []
        async for found in self._asked("/v1/score", ScoreResponse, query, candidates):
            answers += [found] if isinstance(found, PairError) else found.results
        return answers

    async def count(self, query: Content, candidates: Sequence[Content]) -> list[TokenCount | PairError]:
        """How long each candidate's prompt is, in order, or the error that it would get; no model runs.

        A query too large for one request becomes several, as it does when it is judged: `shared_tokens` are those of
        the candidates of one request.

        Raises:
            JudgeUncounted: The judge has no tokens.
            JudgeRefused, JudgeUnavailable, JudgeChanged, JudgeBroken: As of `judge`.
        """
        counts: list[TokenCount | PairError] = []
        async for found in self._asked("/v1/count", CountResponse, query, candidates):
            if isinstance(found, PairError):
                counts.append(found)
            else:
                self._counted = found
                counts += found.results
        return counts

    async def store(self, contents: Iterable[Content]) -> None:
        """Sends images ahead of the questions that will name them; one that is not kept travels inside those."""
        named = {part.name: part.image for part in (Part.of(one, by_name=self.info.limits.blobs) for one in contents)}
        named.pop(None, None)
        now = time.monotonic()
        await asyncio.gather(*(self._upload(name, image, now) for name, image in named.items() if name))

    @property
    def shape(self) -> ModelShape | None:
        """What a token costs, known once the service has counted; None for a model of which it is not known."""
        if self._counted is None:
            raise JudgeBroken("JudgeClient.shape: the service has counted nothing yet; await count(…) first")
        return self._counted.shape

    async def _asked(
        self, path: str, kind: type[R], query: Content, candidates: Sequence[Content]
    ) -> AsyncIterator[R | PairError]:
        """Asks in as many requests as it takes; in order, their answers, and an error for what is too large for any."""
        limits = self.info.limits
        by_name = limits.blobs and time.monotonic() > self._inside_until
        asked = Part.of(query, by_name=by_name)
        room = limits.max_body_bytes - asked.inline_bytes - len(b'{"query":,"candidates":[]}')
        if room < 0:
            raise JudgeRefused(f"the query is larger than a request may be ({limits.max_body_bytes} bytes)")
        for chunk in _chunks([Part.of(c, by_name=by_name) for c in candidates], limits.max_candidates, room):
            if len(chunk) == 1 and chunk[0].inline_bytes > room:
                message = f"{chunk[0].inline_bytes} bytes with its query; a request takes {limits.max_body_bytes}"
                yield PairError(code="too_large", message=message)
                continue
            response = await self._send(path, kind, asked, chunk)
            if len(response.results) != len(chunk):
                raise JudgeBroken(
                    f"{self._connection.url}: {len(chunk)} candidates sent, {len(response.results)} answers returned; "
                    f"the service and this client disagree on {path}: run the same version on both sides"
                )
            yield response

    async def _send(self, path: str, kind: type[R], query: Part, candidates: Sequence[Part]) -> R:
        images = {part.name: part.image for part in (query, *candidates) if part.name}
        inside: set[str] = set()  # images that the service does not keep
        for attempt in range(1, BLOB_ROUNDS + 1):
            body = body_of(query, candidates, inside)
            asked_at = time.monotonic()
            try:
                return await self._connection.post(path, kind, body, self.info.digest)
            except BlobsMissing as missing:
                lacking = [name for name in missing.names if name in images]
                if lacking and attempt < BLOB_ROUNDS - 1:
                    kept = await asyncio.gather(*(self._upload(name, images[name], asked_at) for name in lacking))
                    inside |= {name for name, is_kept in zip(lacking, kept, strict=True) if not is_kept}
                else:
                    inside |= images.keys()
        raise JudgeBroken(f"{self._connection.url}: asks for images that the request holds")

    async def _upload(self, name: str, image: bytes, asked_at: float) -> bool:
        """Sends an image, unless another request does so now or has since `asked_at`; false if it is not kept."""
        if self._stored_at.get(name, float("-inf")) >= asked_at:
            return True
        if name not in self._uploads:
            task = self._uploads[name] = asyncio.create_task(self._put(name, image))
            task.add_done_callback(lambda _: self._uploads.pop(name, None))
        return await asyncio.shield(self._uploads[name])  # others may wait for the image when this request is cancelled

    async def _put(self, name: str, image: bytes) -> bool:
        async with self._upload_slots:
            try:
                await self._connection.put(f"/v1/blobs/{name}", image, retry_for_s=UPLOAD_RETRY_S)
            except BlobRefused:  # this image; it travels inside the request and gets its own error there
                return False
            except JudgeError as error:
                logger.warning("images travel inside the requests for %d s: %s", INSIDE_S, error)
                self._inside_until = time.monotonic() + INSIDE_S
                return False
        while len(self._stored_at) >= REMEMBERED_UPLOADS:
            del self._stored_at[next(iter(self._stored_at))]
        self._stored_at[name] = time.monotonic()
        return True


def judge_now(
    url: str, query: Content, candidates: Sequence[Content], *, key: str | None = None
) -> list[Verdict | PairError]:
    """Scores one query's candidates from code that is not asynchronous. See `JudgeClient.judge`."""

    async def once() -> list[Verdict | PairError]:
        async with JudgeClient(url, key=key) as judge:
            return await judge.judge(query, candidates)

    return asyncio.run(once())


def _chunks(parts: Sequence[Part], most: int, room: int) -> Iterator[Sequence[Part]]:
    """Cuts candidates, in order, into requests; one that is too large for any request comes alone."""
    start = used = 0
    for place, part in enumerate(parts):
        if place > start and (place - start == most or used + part.inline_bytes > room):
            yield parts[start:place]
            start, used = place, 0
        used += part.inline_bytes + len(b",")
    if start < len(parts):
        yield parts[start:]


def _difference(expected: JudgeIdentity, found: JudgeIdentity) -> str:
    pairs = [
        f"{name} is {after!r}, not {before!r}"
        for (name, before), (_, after) in zip(expected, found, strict=True)
        if before != after
    ]
    return f"{found} answers: " + "; ".join(pairs)
