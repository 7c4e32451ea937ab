"""Asks a judge service about rankings: which of the first items are right, which is the best, or both."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from trainer.measuring_settings import RerankSettings
from trainer.reordering import fused, promoted, reranked
from unijudge.client import JudgeClient
from unijudge.corpus import Content, Corpus
from unijudge.rankings import Ranking
from unijudge.verdicts import PairError, Verdict

logger = logging.getLogger(__name__)

WAITING = 1024
"""Queries that exist as tasks at once."""


@dataclass(frozen=True)
class Outcome:
    """One query's ranking, before and after."""

    before: Ranking
    after: Ranking
    unparsable: bool = False
    """Whether its list got no choice."""


class Asking:
    """Asks a judge about rankings, some at once, and orders them by its answers."""

    def __init__(
        self,
        settings: RerankSettings,
        corpus: Corpus,
        judge: JudgeClient,
        total: int,
        report: Callable[[int, int], None],
    ):
        """See `trainer.rerank.rerank`; `total` is what `report` is told."""
        self._settings = settings
        self._corpus = corpus
        self._judge = judge
        self._report = report
        self.total = total
        self._done = 0
        self._queries = {query.query_id: query for query in corpus.queries}
        self._slots = asyncio.Semaphore(settings.in_flight)

    async def about(self, rankings: Sequence[Ranking]) -> list[Outcome]:
        """One outcome for each ranking, in order; where most lists got no choice, that is said."""
        made: list[Outcome] = []
        for start in range(0, len(rankings), WAITING):
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._one(ranking)) for ranking in rankings[start : start + WAITING]]
            made += [task.result() for task in tasks]
        if 2 * (without := sum(outcome.unparsable for outcome in made)) > len(made):
            logger.warning(
                "%d of %d lists got no choice: for these %s order stands. The judge hardly answers lists; serve a "
                "reranker that learned them (loss.listwise), list fewer items (list_size), or set method = 'pointwise'",
                without,
                len(made),
                "the pairs' own" if self._settings.method == "fused" else "the embedder's",
            )
        return made

    async def _one(self, ranking: Ranking) -> Outcome:
        query = self._queries[ranking.query_id]
        positives = query.positive_ids
        async with self._slots:
            corpus, judged = self._corpus, ranking.item_ids[: self._settings.judged]
            pair = corpus.content(query), [corpus.content(corpus.items[corpus.row_of[item_id]]) for item_id in judged]
            log_odds = None if self._settings.method == "listwise" else await self._log_odds(*pair)
            logprobs, place = (None, None) if self._settings.method == "pointwise" else await self._choice(*pair)
        self._done += 1
        self._report(self._done, self.total)
        told = replace(ranking, log_odds=log_odds, list_logprobs=logprobs)
        if log_odds is None:
            after = told if place is None else promoted(told, place, positives)
        elif logprobs is None or place is None:
            after = reranked(told, log_odds, positives)
        else:
            after = reranked(told, fused(log_odds, logprobs), positives)
        return Outcome(ranking, after, unparsable=self._settings.method != "pointwise" and place is None)

    async def _log_odds(self, query: Content, items: list[Content]) -> list[float | None]:
        answers = await self._judge.judge(query, items)
        return [answer.log_odds if isinstance(answer, Verdict) else None for answer in answers]

    async def _choice(self, query: Content, items: list[Content]) -> tuple[list[float] | None, int | None]:
        """The numbers' log-probabilities, if there are any, and the place that was chosen, if one was."""
        answer = await self._judge.choose(query, items)
        if isinstance(answer, PairError):
            return None, None
        return answer.logprobs, answer.place if answer.mass >= self._settings.min_mass else None
