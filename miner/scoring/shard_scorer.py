"""Scores and writes a shard, for a local job and for each task of a Ray job.

Known verdicts are reused. A pair that cannot be judged gets an error. A shard is not written if too many of its pairs
have errors, or if the judge does not answer with Yes or No.
"""

import asyncio
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from miner.scoring.pairs import CandidatePair, PairSource, QueryPairs
from miner.scoring.query_order import shared_order
from miner.scoring.score_cache import ScoreCache
from miner.settings import ScoreSettings
from unijudge.content import Content
from unijudge.errors import DataError, JudgeBroken, JudgeRefused, Unreachable
from unijudge.formats.corpus import Corpus, Item, Query
from unijudge.formats.scores import Judged, JudgedQuery, ScoreManifest, ShardCounts, write_shard
from unijudge.judging.verdicts import Cost, Judge, PairError, Verdict, total_cost
from unijudge.provenance import without_passwords

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ShardInputs:
    """What all shards of a job are scored from."""

    plan: ScoreManifest
    corpus: Corpus
    questions: PairSource
    """What is asked of each query."""
    judge: Judge


class ShardScorer:
    """Scores the shards of one plan with one judge."""

    def __init__(
        self,
        settings: ScoreSettings,
        inputs: ShardInputs,
        known: ScoreCache,
        repeated: Mapping[bytes, int],
        *,
        rivals: bool = False,
    ):
        """Prepares the scorer without asking the judge.

        Args:
            settings: The job.
            inputs: The plan, the corpus, the pairs of each query, and the judge.
            known: The verdicts of earlier jobs.
            repeated: Key of a query that several rows of these shards ask → number of rows.
            rivals: Whether another process may write the same shard at the same time.
        """
        self._settings, self._plan, self._corpus = settings, inputs.plan, inputs.corpus
        self._questions, self._judge, self._known = inputs.questions, inputs.judge, known
        self._rivals = rivals
        self._repeats = {key: _Repeated(rows) for key, rows in repeated.items()}
        self._room = asyncio.Semaphore(settings.max_in_flight)
        self._order = asyncio.Lock()
        # Queries start in order and only a limited number ahead of the last written shard. So a crash loses at most the
        # shards that are scored together, and the queries in flight.
        together = settings.shards_together * settings.shard_size
        self._ahead = asyncio.Semaphore(together + settings.max_in_flight)

    async def score(self, *shards: int) -> list[ShardCounts]:
        """Scores and writes some shards. Their queries are sent in one common order, in which neighbours share items.

        Raises:
            DataError: Too many pairs have no verdict, or the disk cannot be written.
            JudgeError: The judge gave no answer, or does not answer with Yes or No.
        """
        async with asyncio.TaskGroup() as group, self._order:
            questions, order = await asyncio.to_thread(self._ordered, shards)
            tasks = {
                questions[place].row: group.create_task(self._query(questions[place]))
                for place in order
            }

        # A shard has its queries in the order of the corpus.
        counts = []
        for shard in shards:
            rows = self._plan.parts.rows_of(shard)
            counts.append(await self._write(shard, [tasks[row].result() for row in rows]))
        return counts

    def _ordered(self, shards: Sequence[int]) -> tuple[list[QueryPairs], list[int]]:
        """Returns the questions of some shards, and the order in which they are sent."""
        questions: list[QueryPairs] = []
        for shard in shards:
            questions += self._questions.of(self._plan.parts.rows_of(shard))
        return questions, shared_order(list(map(_candidate_rows, questions)))

    async def _write(
        self, shard: int, scored: Sequence[tuple[JudgedQuery, ShardCounts]]
    ) -> ShardCounts:
        """Checks and writes one shard. Returns its counts."""
        judged = [query for query, _ in scored]
        counts = sum((of_query for _, of_query in scored), ShardCounts())
        self._check(shard, judged)
        out = self._settings.out
        await asyncio.to_thread(
            write_shard, out, self._plan, shard, judged, counts, rivals=self._rivals
        )
        for _ in judged:
            self._ahead.release()
        return counts

    async def _query(self, question: QueryPairs) -> tuple[JudgedQuery, ShardCounts]:
        """Returns the judged query, and the counts of its pairs."""
        query = self._corpus.queries[question.row]
        items = [self._corpus.items[asked.row] for asked in question.asked]
        await self._ahead.acquire()  # released when the shard is written
        repeated = self._repeats.get(query.key)
        if repeated is None:
            known, answers = await self._answers(query, items, _Repeated(1))
        else:  # several rows with the same query wait for each other, so that each pair is asked once
            async with repeated.turn:
                known, answers = await self._answers(query, items, repeated)
                fresh = map(_judged, items, question.asked, answers)
                repeated.answered |= {
                    one.item_key: one for one in fresh if one.log_odds is not None
                }
                repeated.rows_left -= 1
                if not repeated.rows_left:
                    del self._repeats[query.key]
        judged = [_judged(*one) for one in zip(items, question.asked, answers, strict=True)]
        positives = [one for one in judged if one.rank is None]
        row = JudgedQuery(
            query.query_id, query.subset, query.key, positives, judged[len(positives) :]
        )
        counts = ShardCounts(
            pairs=len(judged),
            asked=sum(item.key not in known for item in items),
            errors=sum(one.error is not None for one in judged),
            cost=_cost_of(answers),
        )
        return row, counts

    async def _answers(
        self, query: Query, items: Sequence[Item], question: "_Repeated"
    ) -> tuple[Mapping[bytes, Judged], list[Judged | Verdict | PairError]]:
        """Returns the known verdicts of the query, and a known verdict or new answer for each item."""
        async with self._room:
            keys = [item.key for item in items]
            known = {key: question.answered[key] for key in keys if key in question.answered}

            # Other folders are read once for a query, even if many rows have the same query.
            if len(self._known) and len(known) < len(keys):
                if question.before is None:
                    question.before = await asyncio.to_thread(self._known.of, query.key)
                before = question.before
                known |= {key: before[key] for key in keys if key in before}
            unknown = [item for item in items if item.key not in known]
            fresh = iter(await self._ask(query, unknown) if unknown else [])

        answers = [known[key] if key in known else next(fresh) for key in keys]
        return known, answers

    async def _ask(self, query: Query, items: Sequence[Item]) -> list[Verdict | PairError]:
        """Returns one answer for each item. Unreadable items and refused requests become errors."""
        if query.image or any(item.image for item in items):
            asked, contents = await asyncio.to_thread(self._read, query, items)
        else:
            asked, contents = self._read(query, items)
        if isinstance(asked, PairError):
            return [asked] * len(items)
        readable = [content for content in contents if isinstance(content, Content)]
        try:
            answers = iter(await self._judge.judge(asked, readable) if readable else [])
        except JudgeRefused as error:
            # Errors are published, so hide the address.
            service = without_passwords(self._settings.service).rstrip("/")
            message = str(error).replace(service, "the service")
            return [PairError(code="refused", message=message)] * len(items)
        return [next(answers) if isinstance(content, Content) else content for content in contents]

    def _read(
        self, query: Query, items: Sequence[Item]
    ) -> tuple[Content | PairError, list[Content | PairError]]:
        return self._content(query), [self._content(item) for item in items]

    def _content(self, entry: Item | Query) -> Content | PairError:
        try:
            return self._corpus.content(entry)
        except Unreachable:  # a retry may succeed, but a stored error would be permanent
            raise
        except DataError as error:
            return PairError(code="unreadable", message=self._corpus.told(error))

    def _check(self, shard: int, judged: list[JudgedQuery]) -> None:
        settings = self._settings
        pairs = [pair for query in judged for pair in (*query.positives, *query.candidates)]
        failed = [pair for pair in pairs if pair.error is not None]
        if len(failed) > settings.max_error_share * len(pairs):
            raise DataError(
                f"shard {shard}: {len(failed)} of {len(pairs)} pairs have no verdict, more than max_error_share = "
                f"{settings.max_error_share:g}, so the shard was not written. The first reason is {failed[0].error}. "
                "Fix the cause, or raise max_error_share"
            )
        if failed:
            logger.warning(
                "shard %d: %d pairs have no verdict. The first reason is %s",
                shard,
                len(failed),
                failed[0].error,
            )
        masses = [
            math.exp(pair.yes_logprob) + math.exp(pair.no_logprob)
            for pair in pairs
            if pair.yes_logprob is not None and pair.no_logprob is not None
        ]
        mean = sum(masses) / len(masses) if masses else 1.0
        if mean < settings.min_label_mass:
            raise JudgeBroken(
                f"shard {shard}: the judge gives Yes and No together a mean probability of {mean:.3g}, less than "
                f"min_label_mass = {settings.min_label_mass:g}, so it does not answer the question and the shard was "
                "not written. Check the judge's chat template, label words and model"
            )


@dataclass
class _Repeated:
    """The known verdicts of a query. If several rows have the same query, they are kept until the last row is done."""

    rows_left: int
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    answered: dict[bytes, Judged] = field(default_factory=dict)
    """Item key → verdict by this job."""
    before: Mapping[bytes, Judged] | None = None
    """Item key → verdict by earlier jobs; None: not looked up yet."""


def _cost_of(answers: Sequence[Judged | Verdict | PairError]) -> Cost | None:
    """Returns the cost of the new answers. A known verdict costs nothing."""
    return total_cost(answer.cost for answer in answers if isinstance(answer, Verdict))


def _judged(item: Item, asked: CandidatePair, answer: Judged | Verdict | PairError) -> Judged:
    """Returns an item with its rank and similarity of this job, and its verdict or error."""
    if isinstance(answer, Judged):
        return replace(answer, item_id=item.item_id, rank=asked.rank, similarity=asked.similarity)
    place = (item.item_id, item.key, asked.rank, asked.similarity)
    if isinstance(answer, PairError):
        return Judged(*place, error=f"{answer.code}: {answer.message}")
    return Judged(*place, answer.yes_logprob, answer.no_logprob, answer.argmax_is_label)


def _candidate_rows(pairs: QueryPairs) -> npt.NDArray[np.int64]:
    """Returns the rows of a query's candidates in the table of items."""
    return np.array([pair.row for pair in pairs.asked], np.int64)
