"""Asks a judge service about rankings: which of the first items are right, which item is the best, or both.

Answers are stored part by part, so an interrupted job resumes with the missing answers. Questions that ended in an
error are asked again, since a full memory or a failing service may be temporary.
"""

import asyncio
import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from pydantic import BaseModel, ConfigDict

from trainer.evaluation.settings import RerankSettings
from trainer.reranking.fusion import fused, promoted, reranked
from unijudge.client.client import JudgeClient
from unijudge.errors import JudgeRefused
from unijudge.formats.corpus import Corpus
from unijudge.formats.rankings import ANSWERS, Ranking
from unijudge.judging.verdicts import ListVerdict, PairError, Verdict
from unijudge.storage.files import publish_json, read_json
from unijudge.storage.stores import exists

logger = logging.getLogger(__name__)

RANKINGS_AT_ONCE = 128
"""The number of queries in a file of answers, and the largest number of tasks that exist at the same time."""


class RankingAnswer(BaseModel):
    """The judge's answers about the first items of one ranking."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    log_odds: list[float | None] | None
    """The log-odds of each pair, or None for a pair without a verdict. Null if the method asks about no pairs."""
    choice: ListVerdict | None
    """The judge's choice from the list. Null if the method asks about no list, or if the list has no verdict."""
    refused: str | None = None
    """The reason why the judge rejects the query."""
    errors: list[str] = []
    """The reasons why a pair or the list has no answer, each with its code. Only people read this field."""

    @property
    def whole(self) -> bool:
        """Whether the answer is complete, so that no question must be asked again."""
        return self.refused is None and not self.errors


class StoredAnswers(BaseModel):
    """The content of a file answers/….json: the answers of one part, in the order of its rankings."""

    model_config = ConfigDict(extra="forbid")

    answers: list[RankingAnswer]


@dataclass(frozen=True)
class Outcome:
    """The ranking of a query before and after the reranking."""

    before: Ranking
    after: Ranking
    unparsable: bool = False
    """Whether the judge made no choice from the list."""


class RankingJudge:
    """Asks a judge about several rankings at the same time, and reorders each ranking by the answers."""

    def __init__(
        self,
        settings: RerankSettings,
        corpus: Corpus,
        judge: JudgeClient,
        total: int,
        report: Callable[[int, int], None],
    ):
        """Stores the arguments, which are those of `trainer.reranking.rerank.rerank`.

        Args:
            settings: The settings of the job.
            corpus: The corpus of the rankings.
            judge: The client of the judge service.
            total: The number of all queries, for `report`.
            report: A function that is called with (finished queries, all queries).
        """
        self._settings = settings
        self._corpus = corpus
        self._judge = judge
        self._report = report
        self.total = total
        self._done = 0
        self._queries = {query.query_id: query for query in corpus.queries}
        self._slots = asyncio.Semaphore(settings.max_in_flight)

    async def about(self, rankings: Sequence[Ranking]) -> list[Outcome]:
        """Returns the outcome of each ranking, in order. Warns if the judge made no choice for most lists."""
        outcomes: list[Outcome] = []
        for start in range(0, len(rankings), RANKINGS_AT_ONCE):
            part = rankings[start : start + RANKINGS_AT_ONCE]
            path = self._settings.out / ANSWERS / f"{self._name(part)}.json"
            kept = read_json(path, StoredAnswers).answers if exists(path) else []
            complete = {index: answer for index, answer in enumerate(kept) if answer.whole}
            answers = await self._completed(part, complete)
            if answers != kept:
                self._check(part, answers, first=not outcomes)
                publish_json(path, StoredAnswers(answers=answers))
            outcomes += map(self._outcome, part, answers)
        if 2 * (without := sum(outcome.unparsable for outcome in outcomes)) > len(outcomes):
            logger.warning(
                "%d of %d lists got no choice, so these lists keep %s order. The judge answers few lists. Serve a "
                "reranker trained with loss.listwise, lower list_size, or set method = 'pointwise'",
                without,
                len(outcomes),
                "the pairs'" if self._settings.method == "fused" else "the embedder's",
            )
        return outcomes

    async def _completed(
        self, rankings: Sequence[Ranking], kept: Mapping[int, RankingAnswer]
    ) -> list[RankingAnswer]:
        """Returns an answer for each ranking: the stored answer if there is one, otherwise a new answer."""
        async with asyncio.TaskGroup() as group:
            fresh = {
                index: group.create_task(self._answer(ranking))
                for index, ranking in enumerate(rankings)
                if index not in kept
            }
        self._advance(len(kept))
        return [
            kept[index] if index in kept else fresh[index].result()
            for index in range(len(rankings))
        ]

    def _check(
        self, rankings: Sequence[Ranking], answers: Sequence[RankingAnswer], *, first: bool
    ) -> None:
        refused = [
            (ranking.query_id, answer.refused)
            for ranking, answer in zip(rankings, answers, strict=True)
            if answer.refused
        ]
        if first and len(refused) == len(answers):
            raise JudgeRefused(
                "the judge rejects every query so far. The first is {}: {}".format(*refused[0])
            )
        if refused:
            logger.warning(
                "%d queries keep their order, since the judge rejects them. The first is %s: %s",
                len(refused),
                *refused[0],
            )

    def _name(self, rankings: Sequence[Ranking]) -> str:
        """Returns the name of a part's file, a hash of everything that determines the answers."""
        judged = [
            (ranking.query_id, ranking.item_ids[: self._settings.judged]) for ranking in rankings
        ]
        asked = (
            self._corpus.fingerprint,
            self._judge.identity.model_dump_json(),
            self._settings.method,
            judged,
        )
        return hashlib.sha256(repr(asked).encode()).hexdigest()[:32]

    def _advance(self, queries: int) -> None:
        self._done += queries
        self._report(self._done, self.total)

    async def _answer(self, ranking: Ranking) -> RankingAnswer:
        corpus, method = self._corpus, self._settings.method
        judged = [
            corpus.items[corpus.row_of[item_id]]
            for item_id in ranking.item_ids[: self._settings.judged]
        ]
        async with self._slots:
            pair = (
                corpus.content(self._queries[ranking.query_id]),
                [corpus.content(item) for item in judged],
            )
            try:
                verdicts = None if method == "listwise" else await self._judge.judge(*pair)
                choice = None if method == "pointwise" else await self._judge.choose(*pair)
            except JudgeRefused as error:
                nothing = None if method == "listwise" else [None] * len(judged)
                answer = RankingAnswer(log_odds=nothing, choice=None, refused=str(error))
            else:
                answer = _answer_of(verdicts, choice)
        self._advance(1)
        return answer

    def _outcome(self, ranking: Ranking, answer: RankingAnswer) -> Outcome:
        log_odds, choice = answer.log_odds, answer.choice
        place = None
        if choice is not None and choice.mass >= self._settings.min_label_mass:
            place = choice.place
        judged = replace(
            ranking, log_odds=log_odds, list_logprobs=None if choice is None else choice.logprobs
        )
        if log_odds is None:
            after = judged if place is None else promoted(judged, place)
        elif choice is None or place is None:
            after = reranked(judged, log_odds)
        else:
            after = reranked(judged, fused(log_odds, choice.logprobs))
        return Outcome(
            ranking, after, unparsable=self._settings.method != "pointwise" and place is None
        )


def _answer_of(
    verdicts: Sequence[Verdict | PairError] | None, choice: ListVerdict | PairError | None
) -> RankingAnswer:
    """Returns the answer to store for one ranking."""
    results = (*(verdicts or ()), choice)
    errors = [
        f"{result.code}: {result.message}" for result in results if isinstance(result, PairError)
    ]
    log_odds = None
    if verdicts is not None:
        log_odds = [
            verdict.log_odds if isinstance(verdict, Verdict) else None for verdict in verdicts
        ]
    return RankingAnswer(
        log_odds=log_odds, choice=choice if isinstance(choice, ListVerdict) else None, errors=errors
    )
