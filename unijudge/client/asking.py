"""Questions to a judge with their images, and the search for a candidate that kills the judge.

A request becomes suspect after two replicas or engines died during the request. It is then sent again while its replica
works on nothing else. If that replica dies too, the candidates are asked one by one in the same way.
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
"""The number of tries of a request while the service keeps losing its images. The last try has all images inside."""
KILLS = 3
"""The number of queries with which a candidate may kill its judge. After that, it is not sent again."""
KILLS_JUDGE = "kills_judge"
"""The error code of a candidate that kills its judge."""
HARMLESS = Content(text="a")
"""A harmless candidate, by which a query that kills its judge is detected."""

A = TypeVar("A", bound=Answer)


@dataclass(frozen=True)
class Question(Generic[A]):
    """A question about candidates."""

    path: str
    """The path of the service."""
    kind: type[A]
    """The class of the answer."""
    judge: JudgeIdentity
    """The judge that must answer."""
    query: RequestContent
    explain: bool = False
    """Whether the answers must have their cost."""


class Asking:
    """The questions of a client, with a memory of the candidates that killed their judge."""

    def __init__(self, connection: Connection, uploads: Uploads):
        """Takes the connection and the uploads of the client."""
        self._connection, self._uploads = connection, uploads
        # Candidate → with how many queries it killed its judge.
        self._deadly: Counter[RequestContent] = Counter()

    async def whole(self, question: Question[A], candidates: Sequence[RequestContent]) -> A:
        """Returns an answer about all candidates. After deaths, the request is tried alone: another may be the killer.

        Raises:
            JudgeKilled: The request kills its judge even when it is alone.
        """
        with contextlib.suppress(JudgeKilled):
            return await self._send(question, candidates)
        return await self._send(question, candidates, alone=True)

    async def each(
        self, question: Question[A], candidates: Sequence[RequestContent]
    ) -> list[A | PairError]:
        """Returns one answer about all candidates, or an answer for each candidate if together they kill their judge.

        Raises:
            JudgeKilled: The query kills the judge with any candidate.
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
        """Checks whether the query kills its judge with a harmless candidate.

        Raises:
            JudgeKilled: The query kills the judge.
        """
        try:
            await self._send(question, [RequestContent.of(HARMLESS, by_name=False)], alone=True)
        except JudgeKilled as death:
            raise JudgeKilled(f"the query: {death}") from death

    async def _one_alone(self, question: Question[A], candidate: RequestContent) -> A | PairError:
        """Returns the answer about a candidate, which is asked while its replica works on nothing else."""
        if self._deadly[candidate] >= KILLS:
            message = f"the judge died of this candidate with {self._deadly[candidate]} other queries. Leave it out"
            return PairError(code=KILLS_JUDGE, message=message)
        try:
            return await self._send(question, [candidate], alone=True)
        except JudgeKilled as death:
            return self._killer(candidate, death)
        except JudgeRefused as refusal:
            return error_of(refusal)

    def _killer(self, candidate: RequestContent, death: JudgeKilled) -> PairError:
        """Counts a candidate that killed its judge, and returns its error."""
        self._deadly[candidate] += 1
        return error_of(death)

    async def _send(
        self, question: Question[A], candidates: Sequence[RequestContent], *, alone: bool = False
    ) -> A:
        """Sends a request, and returns its answer, which has an entry for each candidate.

        Raises:
            JudgeKilled: The judge died during the request. Unless `alone` is set, another request may be the cause.
        """
        images = {
            part.name: part.image
            for part in (question.query, *candidates)
            if part.name and part.image
        }
        inside: set[str] = set()  # images that the service does not keep
        for attempt in range(1, BLOB_ROUNDS + 1):
            body = body_of(question.query, candidates, inside, explain=question.explain)
            asked_at = time.monotonic()
            try:
                answer = await self._connection.post(
                    question.path, question.kind, body, question.judge, alone=alone
                )
            except BlobsMissing as missing:
                lacking = [name for name in missing.names if name in images]
                if lacking and attempt < BLOB_ROUNDS - 1:
                    kept = await asyncio.gather(
                        *(self._uploads.send(name, images[name], asked_at) for name in lacking)
                    )
                    inside |= {
                        name for name, is_kept in zip(lacking, kept, strict=True) if not is_kept
                    }
                else:
                    inside |= images.keys()
            else:
                self._check_length(question.path, answer, len(candidates))
                return answer
        raise JudgeBroken(f"{self._connection.url}: asks for images that the request holds")

    def _check_length(self, path: str, answer: Answer, sent: int) -> None:
        """Checks that an answer has an entry for each candidate.

        Raises:
            JudgeBroken: The number of entries differs.
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
                f"{self._connection.url}: {sent} candidates sent, {answered} answers returned. The service and this "
                f"client disagree on {path}. Run the same version on both sides"
            )


def error_of(refusal: JudgeRefused) -> PairError:
    """Returns the error of a candidate whose request was refused."""
    return PairError(
        code=KILLS_JUDGE if isinstance(refusal, JudgeKilled) else "refused", message=str(refusal)
    )
