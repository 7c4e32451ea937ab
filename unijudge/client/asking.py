"""Sends a question to a judge with the images that it names, and finds the candidate of which the judge dies.

A request that is in work when its replica or engine dies is suspect after the second time. It is sent again while its
replica works on nothing else. If it kills this one too, its candidates are asked one by one, likewise.
"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from unijudge.client.http import Connection
from unijudge.client.request_body import RequestContent, body_of
from unijudge.client.uploads import Uploads
from unijudge.content import Content
from unijudge.errors import BlobsMissing, JudgeBroken, JudgeKilled, JudgeRefused
from unijudge.judging.protocol import Answer, ChooseResponse, CountResponse, ScoreResponse
from unijudge.judging.verdicts import JudgeIdentity, ListVerdict, PairError

BLOB_ROUNDS = 3
"""How often a request is sent while the service goes on losing its images; the last time they travel inside it."""
KILLS = 3
"""With how many queries a candidate kills its judge until it is asked about no more."""
KILLS_JUDGE = "kills_judge"
"""The code of a candidate's error, where its judge dies of it."""
HARMLESS = Content(text="a")
"""A candidate that tells whether a query kills its judge by itself."""

A = TypeVar("A", bound=Answer)


@dataclass(frozen=True)
class Question(Generic[A]):
    """What is asked about candidates."""

    path: str
    """Of the service."""
    kind: type[A]
    """Of the answer."""
    judge: JudgeIdentity
    """Who shall answer."""
    query: RequestContent


class Asking:
    """The questions of one client. It remembers which candidates killed their judge."""

    def __init__(self, connection: Connection, uploads: Uploads):
        """Sends nothing yet."""
        self._connection, self._uploads = connection, uploads
        self._deadly: Counter[RequestContent] = Counter()  # candidate → with how many queries it killed its judge

    async def whole(self, question: Question[A], candidates: Sequence[RequestContent]) -> A:
        """One answer about all candidates. A request that was in work at deaths may only have been beside what killed.

        Raises:
            JudgeKilled: It kills its judge alone, too.
        """
        with contextlib.suppress(JudgeKilled):
            return await self._send(question, candidates)
        return await self._send(question, candidates, alone=True)

    async def each(self, question: Question[A], candidates: Sequence[RequestContent]) -> list[A | PairError]:
        """One answer about all candidates; or one for each of them, where together they kill their judge.

        Raises:
            JudgeKilled: The query kills it, whatever the candidate.
        """
        if not self._deadly or self._deadly.keys().isdisjoint(candidates):
            try:
                return [await self.whole(question, candidates)]
            except JudgeKilled as death:
                await self._check_query(question)
                if len(candidates) == 1:
                    return [self._killer(candidates[0], death)]
        return [await self._one_alone(question, candidate) for candidate in candidates]

    async def _check_query(self, question: Question[A]) -> None:
        """Returns unless the query kills its judge by itself.

        Raises:
            JudgeKilled: It does.
        """
        try:
            await self._send(question, [RequestContent.of(HARMLESS, by_name=False)], alone=True)
        except JudgeKilled as death:
            raise JudgeKilled(f"the query: {death}") from death

    async def _one_alone(self, question: Question[A], candidate: RequestContent) -> A | PairError:
        """The answer about one candidate, asked while its replica works on nothing else."""
        if self._deadly[candidate] >= KILLS:
            message = f"the judge died of this candidate with {self._deadly[candidate]} other queries; leave it out"
            return PairError(code=KILLS_JUDGE, message=message)
        try:
            return await self._send(question, [candidate], alone=True)
        except JudgeKilled as death:
            return self._killer(candidate, death)
        except JudgeRefused as refusal:
            return error_of(refusal)

    def _killer(self, candidate: RequestContent, death: JudgeKilled) -> PairError:
        """The error of a candidate of which its judge died."""
        self._deadly[candidate] += 1
        return error_of(death)

    async def _send(self, question: Question[A], candidates: Sequence[RequestContent], *, alone: bool = False) -> A:
        """One request's answer, which has one entry for each candidate.

        Raises:
            JudgeKilled: Its judge died of it; or, unless it was asked `alone`, of another one.
        """
        images = {part.name: part.image for part in (question.query, *candidates) if part.name and part.image}
        inside: set[str] = set()  # images that the service does not keep
        for attempt in range(1, BLOB_ROUNDS + 1):
            body = body_of(question.query, candidates, inside)
            asked_at = time.monotonic()
            try:
                answer = await self._connection.post(question.path, question.kind, body, question.judge, alone=alone)
            except BlobsMissing as missing:
                lacking = [name for name in missing.names if name in images]
                if lacking and attempt < BLOB_ROUNDS - 1:
                    kept = await asyncio.gather(*(self._uploads.send(name, images[name], asked_at) for name in lacking))
                    inside |= {name for name, is_kept in zip(lacking, kept, strict=True) if not is_kept}
                else:
                    inside |= images.keys()
            else:
                self._check_length(question.path, answer, len(candidates))
                return answer
        raise JudgeBroken(f"{self._connection.url}: asks for images that the request holds")

    def _check_length(self, path: str, answer: Answer, sent: int) -> None:
        """Returns if there is an entry for each candidate.

        Raises:
            JudgeBroken: There is not.
        """
        match answer:
            case ScoreResponse() | CountResponse():
                answered = len(answer.results)
            case ChooseResponse(result=ListVerdict() as choice):
                answered = len(choice.logprobs)
            case _:
                return
        if answered != sent:
            raise JudgeBroken(
                f"{self._connection.url}: {sent} candidates sent, {answered} answers returned; the service and this "
                f"client disagree on {path}: run the same version on both sides"
            )


def error_of(refusal: JudgeRefused) -> PairError:
    """Of a candidate whose request is refused."""
    return PairError(code=KILLS_JUDGE if isinstance(refusal, JudgeKilled) else "refused", message=str(refusal))
