"""The judge service as a `Judge`: splits large queries, and sends each image once.

It never opens an image for you and never scores twice what was answered. Idempotent: a retry asks the same question.
Ask as much at once as you like: what the service cannot take yet waits here.
"""

import asyncio
import time
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Self, TypeVar

import httpx2

from unijudge.client.asking import Asking, Question, error_of
from unijudge.client.concurrency import FIRST_IN_FLIGHT, AdaptiveLimit
from unijudge.client.http import Connection
from unijudge.client.request_body import UNSENDABLE, RequestContent, chunks
from unijudge.client.uploads import Uploads
from unijudge.content import Content
from unijudge.errors import JudgeBroken, JudgeChanged, JudgeKilled, JudgeRefused, SettingsError
from unijudge.judging.flops import TokenCount
from unijudge.judging.protocol import ChooseResponse, CountResponse, ScoreResponse, ServiceInfo
from unijudge.judging.verdicts import JudgeIdentity, ListVerdict, PairError, Verdict

Split = TypeVar("Split", ScoreResponse, CountResponse)
"""Of what may be asked in several requests."""


class JudgeClient:
    """Scores pairs over HTTP.

        async with JudgeClient("http://127.0.0.1:8000") as judge:
            answers = await judge.judge(Content(text="a cat"), [Content(image=data)])

    On entry it asks the service who it is; from then on every request is pinned to that judge (`If-Match`), and who
    answered is compared, so no answer of another one can slip in. Images are named by their hashes; what the service
    lacks is sent once.

    It has as many requests in flight as the service can answer: more while answers come, half as many at a 429, a 503
    or a timeout.

    One pair kills a replica or an engine at most four times; its neighbours get their verdicts, and no request is given
    up for one beside it (`unijudge/client/asking.py`).
    """

    def __init__(
        self,
        url: str,
        *,
        expect: JudgeIdentity | None = None,
        key: str | None = None,
        request_timeout_s: float = 120,
        retry_for_s: float = 300,
        max_in_flight: int = 64,
        first: int = FIRST_IN_FLIGHT,
        transport: httpx2.AsyncBaseTransport | None = None,
    ):
        """Opens nothing yet.

        Args:
            url: Where the service listens, as in `http://127.0.0.1:8000`.
            expect: Refuse any other judge than this one.
            key: The bearer key, where the service wants one (`read_key` takes it from a file).
            request_timeout_s: How long one try of a request may take, from connecting to the last byte of its answer.
            retry_for_s: How long to go on trying while the service answers nothing, be it busy or away.
            max_in_flight: At most so many requests wait for the service at once; the number follows what it can do.
            first: How many these are before anything is known of the service.
            transport: In the place of the network, for tests: an in-process application, say.

        Raises:
            SettingsError: The key is blank, or can be none; or nothing may be in flight.
            JudgeRefused: The URL is none.
        """
        if min(max_in_flight, first) < 1:
            raise SettingsError(
                f"max_in_flight = {max_in_flight}, first = {first}: nothing could ever be sent. Set 1 or more"
            )
        self._connection = Connection(
            url,
            key=key,
            request_timeout_s=request_timeout_s,
            retry_for_s=retry_for_s,
            limit=AdaptiveLimit(max_in_flight, first=first, timeout_s=request_timeout_s),
            transport=transport,
        )
        self._expect = expect
        self._info: ServiceInfo | None = None
        self._uploads = Uploads(self._connection)
        self._asking = Asking(self._connection, self._uploads)

    async def __aenter__(self) -> Self:
        """Asks the service who it is.

        Raises:
            JudgeUnavailable: Nobody answered in time.
            JudgeChanged: It is not the expected judge.
        """
        try:
            info = await self._connection.get("/v1/identity", ServiceInfo)
            if self._expect is not None and info.identity != self._expect:
                difference = self._expect.difference(info.identity)
                raise JudgeChanged(f"{self._connection.url}: expected {self._expect}, but {difference}")
        except BaseException:
            await self._connection.close()
            raise
        self._info = info
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._uploads.cancel()
        await self._connection.close()

    @property
    def info(self) -> ServiceInfo:
        """Who judges, what a token costs there, and what a request may hold; known once the client is entered."""
        if self._info is None:
            raise JudgeBroken("JudgeClient: use it as `async with JudgeClient(url) as judge:`")
        return self._info

    @property
    def identity(self) -> JudgeIdentity:
        """Who judges."""
        return self.info.identity

    async def judge(self, query: Content, candidates: Sequence[Content]) -> list[Verdict | PairError]:
        """One answer for each candidate, in order. A query too large for one request becomes several.

        Where some of these are refused, their candidates alone get an error, and so does a candidate of which the
        service dies.

        Raises:
            JudgeRefused: The query itself cannot be judged, or the service failed on it again and again.
            JudgeUnavailable: The service answered nothing for `retry_for_s`.
            JudgeChanged: Another judge answered.
            JudgeBroken: The answer is not one for each candidate.
        """
        answers: list[Verdict | PairError] = []
        for found in await self._asked("/v1/score", ScoreResponse, query, candidates):
            answers += [found] if isinstance(found, PairError) else found.results
        return answers

    async def choose(self, query: Content, candidates: Sequence[Content]) -> ListVerdict | PairError:
        """Which of the candidates is the best, asked as one list in this order, or why that cannot be asked.

        Args:
            query: What they are for.
            candidates: At most `unijudge.judging.prompt.LONGEST_LIST`.

        Raises:
            JudgeRefused: Too many candidates; the query itself cannot be judged; or this judge cannot answer listwise.
            JudgeUnavailable, JudgeChanged, JudgeBroken: As of `judge`.
        """
        asked, listed, room = self._parts(query, candidates)
        if broken := [part for part in listed if part.inline_bytes == UNSENDABLE]:
            return broken[0].fault(room)
        size = sum(part.inline_bytes + len(b",") for part in listed)
        if size > room:
            message = f"{size} bytes of candidates in one list; a request takes {room} beside its query: list fewer"
            return PairError(code="too_large", message=message)
        try:
            answer = await self._asking.whole(Question("/v1/choose", ChooseResponse, self.identity, asked), listed)
        except JudgeKilled as death:
            return error_of(death)
        return answer.result

    async def count(self, query: Content, candidates: Sequence[Content]) -> list[TokenCount | PairError]:
        """How long each candidate's prompt is, in order, or the error that it would get; no model runs.

        A query too large for one request becomes several, as it does when it is judged: `shared_tokens` are those of
        the candidates of one request.

        Raises:
            JudgeUncounted: The judge has no tokens.
            JudgeRefused, JudgeUnavailable, JudgeChanged, JudgeBroken: As of `judge`.
        """
        counts: list[TokenCount | PairError] = []
        for found in await self._asked("/v1/count", CountResponse, query, candidates):
            counts += [found] if isinstance(found, PairError) else found.results
        return counts

    async def store(self, contents: Iterable[Content]) -> None:
        """Sends images ahead of the questions that will name them; one that is not kept travels inside those."""
        named = {}
        for one in contents:
            part = RequestContent.of(one, by_name=self.info.limits.blobs)
            named[part.name] = part.image
        now = time.monotonic()
        await asyncio.gather(*(self._uploads.send(name, image, now) for name, image in named.items() if name and image))

    async def _asked(
        self, path: str, kind: type[Split], query: Content, candidates: Sequence[Content]
    ) -> list[Split | PairError]:
        """Asks in as many requests as it takes. In order: their answers, and an error for each candidate without one.

        Raises:
            JudgeRefused: All requests were refused: the query is at fault.
        """
        limits = self.info.limits
        asked, parts, room = self._parts(query, candidates)
        question = Question(path, kind, self.identity, asked)
        found: list[Split | PairError] = []
        refusals: list[JudgeRefused] = []
        answered = False
        for chunk in chunks(parts, limits.max_candidates, room):
            if len(chunk) == 1 and chunk[0].inline_bytes > room:
                found.append(chunk[0].fault(limits.max_body_bytes))
                continue
            try:
                found += await self._asking.each(question, chunk)
                answered = True
            except JudgeKilled:  # by the query: it would kill the next one too
                raise
            except JudgeRefused as refusal:
                refusals.append(refusal)
                found += [error_of(refusal)] * len(chunk)
        if refusals and not answered:
            raise refusals[0]
        return found

    def _parts(self, query: Content, candidates: Sequence[Content]) -> tuple[RequestContent, list[RequestContent], int]:
        """What a request is made of, and the bytes that it has for candidates beside its query."""
        limits = self.info.limits
        by_name = limits.blobs and self._uploads.work
        asked = RequestContent.of(query, by_name=by_name)
        room = limits.max_body_bytes - asked.inline_bytes - len(b'{"query":,"candidates":[]}')
        if asked.inline_bytes == UNSENDABLE:
            raise JudgeRefused(f"the query: {asked.fault(room).message}")
        if room < 0:
            raise JudgeRefused(f"the query is larger than a request may be ({limits.max_body_bytes} bytes)")
        return asked, [RequestContent.of(candidate, by_name=by_name) for candidate in candidates], room


def judge_now(
    url: str, query: Content, candidates: Sequence[Content], *, key: str | None = None
) -> list[Verdict | PairError]:
    """Scores one query's candidates from code that is not asynchronous. See `JudgeClient.judge`."""

    async def once() -> list[Verdict | PairError]:
        async with JudgeClient(url, key=key) as judge:
            return await judge.judge(query, candidates)

    return asyncio.run(once())
