"""Asks a judge service about rankings: which of the first items are right, which is the best, or both.

What it answered is kept, part by part, so that a job that was interrupted asks only for the rest. Errors are asked
again: a full memory or a failing service may have passed.
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
"""Queries of one file of answers; as many exist as tasks at once."""


class RankingAnswer(BaseModel):
    """What the judge said of one ranking's first items."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    log_odds: list[float | None] | None
    """Of each pair, None for one without a verdict; null where pairs were not asked about."""
    choice: ListVerdict | None
    """Of their list; null where it was not asked about, or has none."""
    refused: str | None = None
    """Why the judge takes nothing of this query."""
    errors: list[str] = []
    """Why a pair or the list has no answer, by code: for people."""

    @property
    def whole(self) -> bool:
        """Whether nothing of it need be asked again."""
        return self.refused is None and not self.errors


class StoredAnswers(BaseModel):
    """answers/….json: those of one part, in the order of its rankings."""

    model_config = ConfigDict(extra="forbid")

    answers: list[RankingAnswer]


@dataclass(frozen=True)
class Outcome:
    """One query's ranking, before and after."""

    before: Ranking
    after: Ranking
    unparsable: bool = False
    """Whether its list got no choice."""


class RankingJudge:
    """Asks a judge about rankings, some at once, and orders them by its answers."""

    def __init__(
        self,
        settings: RerankSettings,
        corpus: Corpus,
        judge: JudgeClient,
        total: int,
        report: Callable[[int, int], None],
    ):
        """See `trainer.reranking.rerank.rerank`; `total` is what `report` is told."""
        self._settings = settings
        self._corpus = corpus
        self._judge = judge
        self._report = report
        self.total = total
        self._done = 0
        self._queries = {query.query_id: query for query in corpus.queries}
        self._slots = asyncio.Semaphore(settings.max_in_flight)

    async def about(self, rankings: Sequence[Ranking]) -> list[Outcome]:
        """One outcome for each ranking, in order; where most lists got no choice, that is said."""
        made: list[Outcome] = []
        for start in range(0, len(rankings), RANKINGS_AT_ONCE):
            part = rankings[start : start + RANKINGS_AT_ONCE]
            path = self._settings.out / ANSWERS / f"{self._name(part)}.json"
            kept = read_json(path, StoredAnswers).answers if exists(path) else []
            answers = await self._completed(part, {place: one for place, one in enumerate(kept) if one.whole})
            if answers != kept:
                self._check(part, answers, first=not made)
                publish_json(path, StoredAnswers(answers=answers))
            made += map(self._outcome, part, answers)
        if 2 * (without := sum(outcome.unparsable for outcome in made)) > len(made):
            logger.warning(
                "%d of %d lists got no choice: for these %s order stands. The judge hardly answers lists; serve a "
                "reranker that learned them (loss.listwise), list fewer items (list_size), or set method = 'pointwise'",
                without,
                len(made),
                "the pairs' own" if self._settings.method == "fused" else "the embedder's",
            )
        return made

    async def _completed(self, rankings: Sequence[Ranking], kept: Mapping[int, RankingAnswer]) -> list[RankingAnswer]:
        """One answer for each ranking: a fresh one where none is kept, by its place."""
        async with asyncio.TaskGroup() as group:
            fresh = {
                place: group.create_task(self._answer(ranking))
                for place, ranking in enumerate(rankings)
                if place not in kept
            }
        self._advance(len(kept))
        return [kept[place] if place in kept else fresh[place].result() for place in range(len(rankings))]

    def _check(self, rankings: Sequence[Ranking], answers: Sequence[RankingAnswer], *, first: bool) -> None:
        refused = [
            (one.query_id, answer.refused) for one, answer in zip(rankings, answers, strict=True) if answer.refused
        ]
        if first and len(refused) == len(answers):
            raise JudgeRefused("every query so far, {}: {}".format(*refused[0]))
        if refused:
            logger.warning("%d queries keep their order: the judge refuses them, %s: %s", len(refused), *refused[0])

    def _name(self, rankings: Sequence[Ranking]) -> str:
        """By all that answers depend on."""
        judged = [(ranking.query_id, ranking.item_ids[: self._settings.judged]) for ranking in rankings]
        asked = (self._corpus.fingerprint, self._judge.identity.model_dump_json(), self._settings.method, judged)
        return hashlib.sha256(repr(asked).encode()).hexdigest()[:32]

    def _advance(self, queries: int) -> None:
        self._done += queries
        self._report(self._done, self.total)

    async def _answer(self, ranking: Ranking) -> RankingAnswer:
        corpus, method = self._corpus, self._settings.method
        judged = [corpus.items[corpus.row_of[item_id]] for item_id in ranking.item_ids[: self._settings.judged]]
        async with self._slots:
            pair = corpus.content(self._queries[ranking.query_id]), [corpus.content(item) for item in judged]
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
        place = choice.place if choice is not None and choice.mass >= self._settings.min_label_mass else None
        told = replace(ranking, log_odds=log_odds, list_logprobs=None if choice is None else choice.logprobs)
        if log_odds is None:
            after = told if place is None else promoted(told, place)
        elif choice is None or place is None:
            after = reranked(told, log_odds)
        else:
            after = reranked(told, fused(log_odds, choice.logprobs))
        return Outcome(ranking, after, unparsable=self._settings.method != "pointwise" and place is None)


def _answer_of(verdicts: Sequence[Verdict | PairError] | None, choice: ListVerdict | PairError | None) -> RankingAnswer:
    """What is kept of a judge's words about one ranking."""
    errors = [f"{one.code}: {one.message}" for one in (*(verdicts or ()), choice) if isinstance(one, PairError)]
    log_odds = None
    if verdicts is not None:
        log_odds = [one.log_odds if isinstance(one, Verdict) else None for one in verdicts]
    return RankingAnswer(log_odds=log_odds, choice=choice if isinstance(choice, ListVerdict) else None, errors=errors)
