"""The client of the judge service, which is a `Judge`: it splits large queries, and sends each image once.

The client never opens an image file for you, and never sends an answered request again. Requests are idempotent, so a
retry is safe. You may start any number of calls at once: requests wait in the client until the service has capacity.
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
from unijudge.client.request_body import EXPLAIN, UNSENDABLE, RequestContent, chunks
from unijudge.client.uploads import Uploads
from unijudge.content import Content
from unijudge.errors import JudgeBroken, JudgeChanged, JudgeKilled, JudgeRefused, SettingsError
from unijudge.judging.flops import TokenCount
from unijudge.judging.protocol import ChooseResponse, CountResponse, ScoreResponse, ServiceInfo
from unijudge.judging.verdicts import (
    Cost,
    JudgeIdentity,
    ListVerdict,
    PairError,
    Verdict,
    total_cost,
)

Split = TypeVar("Split", ScoreResponse, CountResponse)
"""The answers to questions that may be split into several requests."""


class JudgeClient:
    """A client that scores pairs over HTTP.

    For example::

        async with JudgeClient("http://127.0.0.1:8000") as judge:
            answers = await judge.judge(Content(text="a cat"), [Content(image=data)])

    On entry, the client reads the judge's identity. After that, every request is pinned to this judge (`If-Match`), and
    the identity in each answer is compared, so that answers of different judges are never mixed. Images are named by
    their hashes, and an image that the service lacks is sent once.

    The number of requests in flight adapts to the service: it grows while answers come, and is halved after a 429, a
    503 or a timeout.

    A single pair can kill a replica or an engine at most four times. All other pairs get their verdicts
    (`unijudge/client/asking.py`).
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
        explain: bool = False,
        transport: httpx2.AsyncBaseTransport | None = None,
    ):
        """Creates a client. `async with` opens the connection.

        Args:
            url: The URL of the service, such as `http://127.0.0.1:8000`.
            expect: The only judge that the client accepts; None for any judge.
            key: The bearer key, if the service needs a key (`read_key` reads it from a file).
            request_timeout_s: The timeout of a try, from connecting to the last byte of the answer, in seconds.
            retry_for_s: The time limit of retries while the service is busy or unreachable and answers no request, in
                seconds.
            max_in_flight: The most requests in flight. The actual number adapts to the service.
            first: The number of requests in flight at the beginning.
            explain: Whether each verdict has its cost, and `cost` is their sum.
            transport: A replacement for the network, for tests, such as an in-process application.

        Raises:
            SettingsError: The key is blank or invalid, or `max_in_flight` or `first` is less than 1.
            JudgeRefused: The URL is invalid.
        """
        if min(max_in_flight, first) < 1:
            raise SettingsError(
                f"max_in_flight = {max_in_flight}, first = {first}: no request could ever be sent. Set 1 or more"
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
        self._explain = explain
        self._cost: Cost | None = None
        self._info: ServiceInfo | None = None
        self._uploads = Uploads(self._connection)
        self._asking = Asking(self._connection, self._uploads)

    async def __aenter__(self) -> Self:
        """Reads the identity of the judge.

        Raises:
            JudgeUnavailable: The service did not answer in time.
            JudgeChanged: The judge is not the expected judge.
        """
        try:
            info = await self._connection.get("/v1/identity", ServiceInfo)
            if self._expect is not None and info.identity != self._expect:
                difference = self._expect.difference(info.identity)
                raise JudgeChanged(
                    f"{self._connection.url}: expected {self._expect}, but {difference}"
                )
        except BaseException:
            await self._connection.close()
            raise
        self._info = info
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._uploads.cancel()
        await self._connection.close()

    @property
    def info(self) -> ServiceInfo:
        """Returns the judge's identity, the cost of a token, and the limits of a request. Only inside `async with`."""
        if self._info is None:
            raise JudgeBroken("JudgeClient: use it as `async with JudgeClient(url) as judge:`")
        return self._info

    @property
    def identity(self) -> JudgeIdentity:
        """Returns the identity of the judge."""
        return self.info.identity

    @property
    def cost(self) -> Cost | None:
        """Returns the cost of all verdicts of `judge` so far. None without `explain`, or if the judge does not count.

        Requests whose answer was lost are not included.
        """
        return self._cost

    async def judge(
        self, query: Content, candidates: Sequence[Content]
    ) -> list[Verdict | PairError]:
        """Returns an answer for each candidate, in order. A query that is too large for one request is split.

        If some of the requests are refused, only their candidates get an error. A candidate that kills its replica gets
        an error too.

        Raises:
            JudgeRefused: The query itself cannot be judged, or the service failed on it repeatedly.
            JudgeUnavailable: The service answered no request for `retry_for_s`.
            JudgeChanged: Another judge answered.
            JudgeBroken: The number of answers is not the number of candidates.
        """
        answers: list[Verdict | PairError] = []
        for found in await self._asked("/v1/score", ScoreResponse, query, candidates):
            answers += [found] if isinstance(found, PairError) else found.results
        verdicts = [answer for answer in answers if isinstance(answer, Verdict)]
        self._cost = total_cost([self._cost, *(verdict.cost for verdict in verdicts)])
        return answers

    async def choose(
        self, query: Content, candidates: Sequence[Content]
    ) -> ListVerdict | PairError:
        """Returns the best candidate by one listwise question in this order, or the reason why it cannot be asked.

        Args:
            query: The query.
            candidates: At most `unijudge.judging.prompt.LONGEST_LIST` candidates.

        Raises:
            JudgeRefused: Too many candidates; the query itself cannot be judged; or this judge cannot answer listwise.
            JudgeUnavailable, JudgeChanged, JudgeBroken: The errors of `judge`.
        """
        asked, listed, room = self._parts(query, candidates)
        if broken := [part for part in listed if part.inline_bytes == UNSENDABLE]:
            return broken[0].fault(room)
        size = sum(part.inline_bytes + len(b",") for part in listed)
        if size > room:
            message = f"{size} bytes of candidates, but a request takes {room} beside its query. List fewer candidates"
            return PairError(code="too_large", message=message)
        try:
            answer = await self._asking.whole(
                Question("/v1/choose", ChooseResponse, self.identity, asked), listed
            )
        except JudgeKilled as death:
            return error_of(death)
        return answer.result

    async def count(
        self, query: Content, candidates: Sequence[Content]
    ) -> list[TokenCount | PairError]:
        """Returns the length of each candidate's prompt, in order, or the candidate's error, without running the model.

        A query that is too large for one request is split, as in `judge`, so `shared_tokens` counts the tokens that the
        candidates of the same request share.

        Raises:
            JudgeUncounted: The judge has no tokens.
            JudgeRefused, JudgeUnavailable, JudgeChanged, JudgeBroken: The errors of `judge`.
        """
        counts: list[TokenCount | PairError] = []
        for found in await self._asked("/v1/count", CountResponse, query, candidates):
            counts += [found] if isinstance(found, PairError) else found.results
        return counts

    async def store(self, contents: Iterable[Content]) -> None:
        """Uploads images before the questions that use them. An image that the service does not keep is sent later."""
        named = {}
        for content in contents:
            part = RequestContent.of(content, by_name=self.info.limits.blobs)
            named[part.name] = part.image
        now = time.monotonic()
        await asyncio.gather(
            *(
                self._uploads.send(name, image, now)
                for name, image in named.items()
                if name and image
            )
        )

    async def _asked(
        self, path: str, kind: type[Split], query: Content, candidates: Sequence[Content]
    ) -> list[Split | PairError]:
        """Sends as many requests as needed. Returns their answers, and an error for each other candidate, in order.

        Raises:
            JudgeRefused: All requests were refused, so the query is at fault.
        """
        limits = self.info.limits
        asked, parts, room = self._parts(query, candidates)
        question = Question(path, kind, self.identity, asked, self._explain)
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
            except JudgeKilled:  # the query kills the judge: no further request may be sent
                raise
            except JudgeRefused as refusal:
                refusals.append(refusal)
                found += [error_of(refusal)] * len(chunk)
        if refusals and not answered:
            raise refusals[0]
        return found

    def _parts(
        self, query: Content, candidates: Sequence[Content]
    ) -> tuple[RequestContent, list[RequestContent], int]:
        """Returns the query and the candidates for requests, and the bytes of a request for candidates."""
        limits = self.info.limits
        by_name = limits.blobs and self._uploads.work
        asked = RequestContent.of(query, by_name=by_name)
        frame = len(b'{"query":,"candidates":[]}') + len(EXPLAIN)
        room = limits.max_body_bytes - asked.inline_bytes - frame
        if asked.inline_bytes == UNSENDABLE:
            raise JudgeRefused(f"the query: {asked.fault(room).message}")
        if room < 0:
            raise JudgeRefused(
                f"the query is larger than a request may be ({limits.max_body_bytes} bytes). Shorten it"
            )
        return (
            asked,
            [RequestContent.of(candidate, by_name=by_name) for candidate in candidates],
            room,
        )


def judge_now(
    url: str, query: Content, candidates: Sequence[Content], *, key: str | None = None
) -> list[Verdict | PairError]:
    """Scores a query's candidates from synchronous code. See `JudgeClient.judge`."""

    async def once() -> list[Verdict | PairError]:
        async with JudgeClient(url, key=key) as judge:
            return await judge.judge(query, candidates)

    return asyncio.run(once())
