"""Streams queries and their nearest candidates to the judge, and writes what it measured as shards.

What it promises: a shard on disk is complete; a rerun judges only what is missing; every row of one folder comes from
one judge; memory is bounded by what is in flight. What it does not do: choose negatives (`select`), embed, or judge.
"""

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from miner.plan import Candidates, start_plan
from miner.settings import ScoreSettings
from unijudge.client import JudgeClient
from unijudge.corpus import Content, Corpus, Item, Query
from unijudge.errors import DataError, JudgeBroken, JudgeRefused, UnijudgeError
from unijudge.files import file_sha256, read_text
from unijudge.leases import lease
from unijudge.scores import Judged, JudgedQuery, ScoreManifest, missing_shards, write_shard
from unijudge.verdicts import Judge, PairError, Verdict


@dataclass(frozen=True)
class Progress:
    """How far a job is, after each shard."""

    shards: int
    shards_done: int
    """Of this run and of those before it."""
    shards_before: int
    """Found done when this run began."""
    pairs: int
    """Judged in this run."""
    errors: int
    """Of these, pairs without a verdict."""
    seconds: float
    """Since this run began to score."""

    @property
    def pairs_per_second(self) -> float:
        """Of this run."""
        return self.pairs / self.seconds if self.seconds else 0.0

    @property
    def seconds_left(self) -> float | None:
        """At the pace of this run; None before its first shard."""
        mine = self.shards_done - self.shards_before
        return self.seconds / mine * (self.shards - self.shards_done) if mine else None


def score(settings: ScoreSettings, report: Callable[[Progress], None]) -> Progress:
    """Runs a job, or what is left of it.

    Args:
        settings: The job.
        report: Is called once at the start and after each shard.

    Raises:
        UnijudgeError: Whatever stopped it; the shards that were finished stay.
    """
    try:
        return asyncio.run(_Job(settings, report).run())
    except* UnijudgeError as group:
        raise _first(group) from None


class _Job:
    def __init__(self, settings: ScoreSettings, report: Callable[[Progress], None]):
        self._settings = settings
        self._report = report
        self._corpus = Corpus(settings.corpus)
        if not self._corpus.queries:
            raise DataError(f"{settings.corpus}: has no queries; there is nothing to score")
        self._candidates = Candidates(self._corpus, settings.vectors, settings.pool)
        self._room = asyncio.Semaphore(settings.in_flight)
        self._pairs = self._errors = 0

    async def run(self) -> Progress:
        settings = self._settings
        client = JudgeClient(
            settings.service,
            key=read_text(settings.key_file).strip() if settings.key_file else None,
            request_timeout_s=settings.request_timeout_s,
            retry_for_s=settings.retry_for_s,
        )
        with lease(settings.out):
            async with client as judge:
                plan = ScoreManifest(
                    corpus=self._corpus.fingerprint,
                    vectors=file_sha256(settings.vectors / "vectors.json"),
                    queries=len(self._corpus.queries),
                    queries_in_shard=settings.queries_in_shard,
                    k=settings.k,
                    pool=settings.pool,
                    judge=judge.identity,
                )
                start_plan(settings.out, plan)
                return await self._score_missing(judge, plan)

    async def _score_missing(self, judge: Judge, plan: ScoreManifest) -> Progress:
        todo = missing_shards(self._settings.out, plan)
        left = iter(todo)
        begun = time.monotonic()
        done = before = plan.shards - len(todo)

        def progress() -> Progress:
            return Progress(plan.shards, done, before, self._pairs, self._errors, time.monotonic() - begun)

        async def worker() -> None:
            nonlocal done
            for shard in left:
                rows = await self._score_shard(judge, plan, shard)
                await asyncio.to_thread(write_shard, self._settings.out, plan, shard, rows)
                done += 1
                self._report(progress())

        self._report(progress())
        async with asyncio.TaskGroup() as workers:
            for _ in range(2):  # the second one keeps the service busy while the first waits for its slowest query
                workers.create_task(worker())
        return progress()

    async def _score_shard(self, judge: Judge, plan: ScoreManifest, shard: int) -> list[JudgedQuery]:
        rows = plan.rows(shard)
        candidates = await asyncio.to_thread(self._candidates.of, rows, plan.k)
        async with asyncio.TaskGroup() as queries:
            tasks = [
                queries.create_task(self._score_query(judge, row, near))
                for row, near in zip(rows, candidates, strict=True)
            ]
        judged = [task.result() for task in tasks]
        self._check(shard, judged)
        return judged

    async def _score_query(self, judge: Judge, row: int, near: list[tuple[int, float]]) -> JudgedQuery:
        query = self._corpus.queries[row]
        positives = [self._corpus.row_of[item] for item in query.positive_ids]
        items = [*positives, *(item for item, _ in near)]
        similarities = [*self._candidates.positive_similarity(row).tolist(), *(value for _, value in near)]
        ranks = [*(None for _ in positives), *range(len(near))]
        async with self._room:
            answers = await self._ask(judge, row, items)
        judged = [
            Judged(
                item_id=self._corpus.items[item].item_id,
                item_key=self._corpus.items[item].key,
                rank=rank,
                similarity=similarity,
                yes_logprob=answer.yes_logprob if isinstance(answer, Verdict) else None,
                no_logprob=answer.no_logprob if isinstance(answer, Verdict) else None,
                argmax_is_label=answer.argmax_is_label if isinstance(answer, Verdict) else None,
                error=None if isinstance(answer, Verdict) else f"{answer.code}: {answer.message}",
            )
            for item, rank, similarity, answer in zip(items, ranks, similarities, answers, strict=True)
        ]
        return JudgedQuery(query.query_id, query.subset, query.key, judged[: len(positives)], judged[len(positives) :])

    async def _ask(self, judge: Judge, row: int, items: list[int]) -> list[Verdict | PairError]:
        """One answer for each item; what cannot be read or is refused becomes an error in its place."""
        query, contents = await asyncio.to_thread(self._read, row, items)
        if isinstance(query, PairError):
            return [query] * len(items)
        readable = [content for content in contents if isinstance(content, Content)]
        try:
            answers = iter(await judge.judge(query, readable) if readable else [])
        except JudgeRefused as error:
            return [PairError(code="refused", message=str(error))] * len(items)
        return [next(answers) if isinstance(content, Content) else content for content in contents]

    def _read(self, row: int, items: list[int]) -> tuple[Content | PairError, list[Content | PairError]]:
        query = self._content(self._corpus.queries[row])
        return query, [self._content(self._corpus.items[item]) for item in items]

    def _content(self, entry: Item | Query) -> Content | PairError:
        try:
            return self._corpus.content(entry)
        except DataError as error:
            return PairError(code="unreadable", message=str(error))

    def _check(self, shard: int, judged: list[JudgedQuery]) -> None:
        pairs = [pair for query in judged for pair in (*query.positives, *query.candidates)]
        failed = [pair for pair in pairs if pair.error is not None]
        self._pairs += len(pairs)
        self._errors += len(failed)
        if len(failed) > self._settings.max_error_share * len(pairs):
            raise DataError(
                f"shard {shard}: {len(failed)} of {len(pairs)} pairs have no verdict, more than max_error_share = "
                f"{self._settings.max_error_share:g}; the shard was not written. Mend the cause, or raise "
                f"max_error_share. First reason: {failed[0].error}"
            )
        masses = [
            math.exp(pair.yes_logprob) + math.exp(pair.no_logprob)
            for pair in pairs
            if pair.yes_logprob is not None and pair.no_logprob is not None
        ]
        mean = sum(masses) / len(masses) if masses else 1.0
        if mean < self._settings.min_mass:
            raise JudgeBroken(
                f"shard {shard}: the judge gives Yes and No together a mean probability of {mean:.3g}, less than "
                f"min_mass = {self._settings.min_mass:g}: it is not answering the question. Chat template, label words "
                "or model do not fit; the shard was not written"
            )


def _first(group: BaseExceptionGroup[UnijudgeError]) -> UnijudgeError:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
