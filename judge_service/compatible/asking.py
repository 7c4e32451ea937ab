"""The common part of the compatible routes: read a body, judge pairs in groups, add up the costs."""

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

from fastapi import Request
from pydantic import BaseModel, ConfigDict

from judge_service.front.bodies import read_json, work_of
from judge_service.front.errors import HttpError
from judge_service.front.questions import Questions
from judge_service.settings import LimitSettings
from unijudge.content import Content
from unijudge.judging.verdicts import (
    FREE,
    Chooser,
    Cost,
    Judge,
    ListVerdict,
    PairError,
    Verdict,
)

Answers = Sequence[Verdict | PairError]

MARKS_IN_DOCUMENT = 16
"""The most commas, braces and brackets of a document: two parts with nested objects have eleven."""


class ListJudge(Judge, Chooser, Protocol):
    """A judge of pairs that also answers listwise questions."""


class Body(BaseModel):
    """The base class of the bodies. Unknown fields are ignored, since clients send many options of other servers."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    model: str | None = None
    """Ignored: the service has one judge, whose name is in the answer."""


B = TypeVar("B", bound=Body)


class Asker:
    """Judges the pairs of the compatible routes, with the queue and the limits of the service."""

    def __init__(self, questions: Questions, judge: ListJudge, limits: LimitSettings):
        self.questions = questions
        self.model = judge.identity.model
        self._judge = judge
        self._limits = limits

    async def read(self, http: Request, kind: type[B], body: bytes | None = None) -> B:
        """Reads the body of a request.

        Args:
            http: The request.
            kind: The class of the body.
            body: The JSON of a request whose body also has other parts. None: the whole body is JSON.

        Raises:
            HttpError: The body is not a request of this kind, or the request is for another judge.
        """
        self.questions.check_pin(http)
        if body is None:
            body = await http.body()
            if is_multipart(http):
                message = "Content-Type: this route takes no multipart body. Send application/json"
                raise HttpError(415, "bad_request", message)
        marks = MARKS_IN_DOCUMENT * (self._limits.max_documents + 2)
        return await asyncio.to_thread(read_json, body, kind, marks, status=422)

    async def judge(self, http: Request, query: Content, candidates: Sequence[Content]) -> Answers:
        """Judges the candidates of a query, in one turn of the queue.

        Raises:
            HttpError: The request cannot be answered.
        """
        self.check_number(len(candidates))
        async with self.questions.turn(http, work_of(query, candidates)):
            return await self.in_groups(query, candidates)

    async def judge_pairs(self, http: Request, pairs: Sequence[tuple[Content, Content]]) -> Answers:
        """Judges pairs with different queries, in one turn of the queue. Pairs with equal queries are judged together.

        Raises:
            HttpError: The request cannot be answered.
        """
        self.check_number(len(pairs))
        places: dict[Content, list[int]] = {}
        for place, (query, _) in enumerate(pairs):
            places.setdefault(query, []).append(place)
        answers: dict[int, Verdict | PairError] = {}
        work = sum(work_of(query, [candidate]) for query, candidate in pairs)
        async with self.questions.turn(http, work):
            for query, together in places.items():
                candidates = [pairs[place][1] for place in together]
                judged = await self.in_groups(query, candidates)
                answers.update(zip(together, judged, strict=True))
        return [answers[place] for place in range(len(pairs))]

    async def in_groups(self, query: Content, candidates: Sequence[Content]) -> Answers:
        """Judges candidates in groups of the service's limit. The caller has a turn of the queue."""
        size = self._limits.max_candidates
        answers: list[Verdict | PairError] = []
        for start in range(0, len(candidates), size):
            answers += await self._judge.judge(query, candidates[start : start + size])
        return answers

    async def choose(
        self, query: Content, candidates: Sequence[Content]
    ) -> ListVerdict | PairError:
        """Answers a listwise question. The caller has a turn of the queue."""
        return await self._judge.choose(query, candidates)

    def check_number(self, number: int) -> None:
        """Raises an error if a request has too many documents.

        Raises:
            HttpError: The request has more documents than the limit.
        """
        limit = self._limits.max_documents
        if number > limit:
            raise HttpError(
                413,
                "too_large",
                f"{number} documents: a request may have {limit}. Send fewer documents",
            )


def is_multipart(http: Request) -> bool:
    """Whether the body of a request consists of parts."""
    return http.headers.get("Content-Type", "").lower().startswith("multipart/")


def errors_of(answers: Answers) -> list[dict[str, Any]]:
    """Returns the index, the code and the message of each pair that cannot be judged."""
    return [
        {"index": index, "code": answer.code, "message": answer.message}
        for index, answer in enumerate(answers)
        if isinstance(answer, PairError)
    ]


def usage_of(answers: Sequence[Verdict | ListVerdict | PairError]) -> Cost:
    """Returns the cost of all answers. A scripted judge costs nothing."""
    costs = (answer.cost for answer in answers if not isinstance(answer, PairError))
    return sum((cost for cost in costs if cost is not None), FREE)
