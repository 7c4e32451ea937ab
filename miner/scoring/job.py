"""Runs a scoring job: sends queries and their candidates to the judge, and writes the verdicts as shards.

A shard on disk is always complete. A rerun scores only missing shards. All rows of a folder come from a single judge.
When a signal asks the job to stop, the shards in work are finished. Memory grows with the requests in flight, not with
the corpus.
"""

import asyncio
import logging
import signal
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import chain

from miner.retrieval.pools import repeated_questions
from miner.scoring.plan import pair_source_of, plan_of, start_plan
from miner.scoring.score_cache import ScoreCache
from miner.scoring.service import open_client
from miner.scoring.shard_scorer import ShardCounts, ShardScorer
from miner.settings import ScoreSettings
from miner.stopping import Stopped, listening
from unijudge.client.client import JudgeClient
from unijudge.errors import DataError, SettingsError, UnijudgeError
from unijudge.formats.corpus import Corpus
from unijudge.formats.scores import ScoreManifest, missing_shards
from unijudge.storage.leases import lease, lost_lease

logger = logging.getLogger(__name__)

AT_ONCE = 2
"""Shards in work at once. The second shard keeps the service busy while the first waits for its slowest query."""


@dataclass(frozen=True)
class ScoreProgress:
    """The progress of a job after each shard."""

    shards: int
    shards_done: int
    """Number of shards written by this run and by earlier runs."""
    shards_before: int
    """Number of shards written by earlier runs."""
    counts: ShardCounts
    """The counts of this run."""
    seconds: float
    """Seconds since this run started scoring."""

    @property
    def pairs_per_second(self) -> float:
        """Pairs per second that the judge was asked about in this run."""
        return self.counts.asked / self.seconds if self.seconds else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Expected seconds until the end at the rate of this run; None before its first shard."""
        mine = self.shards_done - self.shards_before
        return self.seconds / mine * (self.shards - self.shards_done) if mine else None


ProgressCallback = Callable[[ScoreProgress], None]


def score(settings: ScoreSettings, report: ProgressCallback) -> ScoreProgress:
    """Runs a job, or resumes it. After SIGINT or SIGTERM the shards in work are finished.

    Args:
        settings: The job.
        report: Called once at the start and after each shard.

    Raises:
        UnijudgeError: An error or a lost lease stopped the job. Written shards are kept.
    """
    corpus = Corpus(settings.corpus)
    if not len(corpus.queries):
        raise DataError(f"{settings.corpus}: has no queries, so there is nothing to score. Import queries first")
    try:
        with lease(settings.out) as stop, _engine(settings):
            heard: list[signal.Signals] = []
            done = asyncio.run(_run(settings, corpus, report, stop, heard))
    except* UnijudgeError as group:
        raise _first(group) from None
    if stop.is_set() and not heard and done.shards_done < done.shards:
        raise lost_lease(settings.out)
    return done


def _engine(settings: ScoreSettings) -> AbstractContextManager[None]:
    """Returns a context with a connection to the cluster for `engine = "ray"`, and an empty context otherwise."""
    if settings.engine == "local":
        return nullcontext()
    try:
        from miner.scoring.ray_executor import connected
    except ImportError as error:
        raise SettingsError(
            f'engine = "ray": Ray cannot be imported ({error}). Install it with pip install "unijudge[mine-ray]"'
        ) from error
    return connected(settings)


async def _run(
    settings: ScoreSettings,
    corpus: Corpus,
    report: ProgressCallback,
    stop: threading.Event,
    heard: list[signal.Signals],
) -> ScoreProgress:
    """Scores all missing shards. A lost lease or a signal sets `stop`, which ends the run early; see `listening`."""

    def asked_to_stop(number: signal.Signals) -> None:
        stop.set()
        logger.info("%s: stopping after the shards in work. A second signal stops the job at once", number.name)

    async with open_client(settings) as judge:
        with listening(heard, asked_to_stop):
            return await _scored(settings, corpus, report, stop, judge)


async def _scored(
    settings: ScoreSettings, corpus: Corpus, report: ProgressCallback, stop: threading.Event, judge: JudgeClient
) -> ScoreProgress:
    plan = plan_of(settings, corpus, judge.identity)
    start_plan(settings.out, plan)
    todo = missing_shards(settings.out, plan)
    tally = _Tally(plan, len(todo), report)
    try:
        questions = await asyncio.to_thread(pair_source_of, settings, corpus, stop)
    except Stopped:
        return tally.progress
    tally.begin()
    if settings.engine == "ray":
        from miner.scoring.ray_executor import score_shards

        await asyncio.to_thread(score_shards, settings, plan, todo, tally.add, stop)
        return tally.progress
    known = await asyncio.to_thread(ScoreCache, [*settings.reuse, settings.out], plan.judge)
    rows = None if len(todo) == plan.shards else chain.from_iterable(map(plan.rows, todo))
    repeated = await asyncio.to_thread(repeated_questions, corpus, rows)
    scorer = ShardScorer(settings, plan, corpus, questions, judge, known, repeated)
    left = iter(todo)

    async def worker() -> None:
        for shard in left:
            if stop.is_set():
                return
            tally.add(await scorer.score(shard))

    async with asyncio.TaskGroup() as workers:
        for _ in range(AT_ONCE):
            workers.create_task(worker())
    return tally.progress


class _Tally:
    """Adds up the counts of shards, and reports progress."""

    def __init__(self, plan: ScoreManifest, todo: int, report: ProgressCallback):
        self._begun, self._report = time.monotonic(), report
        before = plan.shards - todo
        self.progress = ScoreProgress(plan.shards, before, before, ShardCounts(), 0.0)
        report(self.progress)

    def begin(self) -> None:
        """Starts the clock. The time before was not spent scoring."""
        self._begun = time.monotonic()

    def add(self, counts: ShardCounts) -> None:
        """Adds a written shard."""
        done, counts = self.progress.shards_done + 1, self.progress.counts + counts
        self.progress = replace(self.progress, shards_done=done, counts=counts, seconds=time.monotonic() - self._begun)
        self._report(self.progress)


def _first(group: BaseExceptionGroup[UnijudgeError]) -> UnijudgeError:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
