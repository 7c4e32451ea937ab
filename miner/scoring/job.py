"""Runs a scoring job: sends queries and their candidates to the judge, and writes the verdicts as shards.

A shard on disk is always complete. A rerun scores only missing shards. All rows of a folder come from a single judge.
When a signal asks the job to stop, the running shards are finished. Memory grows with the requests in flight, not with
the corpus.
"""

import asyncio
import logging
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from miner.scoring.executor import Executor
from miner.scoring.local_executor import LocalExecutor
from miner.scoring.plan import TOTALS, open_candidate_input, pair_source_of, plan_of, start_plan
from miner.scoring.service import open_client
from miner.scoring.shard_scorer import ShardInputs
from miner.settings import ScoreSettings
from miner.stopping import Stopped, listening
from unijudge.client.client import JudgeClient
from unijudge.errors import DataError, SettingsError, UnijudgeError, first_error
from unijudge.formats.corpus import Corpus
from unijudge.formats.scores import (
    ScoreManifest,
    ScoreTotals,
    ShardCounts,
    counts_of,
)
from unijudge.storage.files import publish_json
from unijudge.storage.leases import lease, lost_lease

logger = logging.getLogger(__name__)


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
    totals: ScoreTotals | None = None
    """The counts of all runs of the job, at the end of this run."""

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
    """Runs a job, or resumes it. After SIGINT or SIGTERM the running shards are finished.

    Args:
        settings: The job.
        report: Called once at the start and after each shard.

    Raises:
        UnijudgeError: An error or a lost lease stopped the job. Written shards are kept.
    """
    corpus = Corpus(settings.corpus)
    if not len(corpus.queries):
        raise DataError(
            f"{settings.corpus}: has no queries, so there is nothing to score. Import queries first"
        )
    executor = _executor_of(settings)
    try:
        with lease(settings.out) as stop, executor.connected():
            heard: list[signal.Signals] = []
            done = asyncio.run(_run(settings, corpus, executor, report, stop, heard))
            is_lost = stop.is_set() and not heard
            if done.totals is not None and not is_lost:
                publish_json(settings.out / TOTALS, done.totals)
    except* UnijudgeError as group:
        raise first_error(group) from None
    if is_lost and done.shards_done < done.shards:
        raise lost_lease(settings.out)
    return done


def _executor_of(settings: ScoreSettings) -> Executor:
    """Returns the executor of this job's shards.

    Raises:
        SettingsError: Ray is chosen and not installed.
    """
    if settings.engine == "local":
        return LocalExecutor(settings)
    try:
        from miner.scoring.ray_executor import RayExecutor
    except ImportError as error:
        raise SettingsError(
            f'engine = "ray": Ray cannot be imported ({error}). Install it with pip install "unijudge[mine-ray]"'
        ) from error
    return RayExecutor(settings)


async def _run(
    settings: ScoreSettings,
    corpus: Corpus,
    executor: Executor,
    report: ProgressCallback,
    stop: threading.Event,
    heard: list[signal.Signals],
) -> ScoreProgress:
    """Scores all missing shards. A lost lease or a signal sets `stop`, which ends the run early; see `listening`."""

    def asked_to_stop(number: signal.Signals) -> None:
        stop.set()
        logger.info(
            "%s: stopping after the running shards. A second signal stops the job at once",
            number.name,
        )

    async with open_client(settings) as judge:
        with listening(heard, asked_to_stop):
            return await _scored(settings, corpus, judge, executor, report, stop)


async def _scored(
    settings: ScoreSettings,
    corpus: Corpus,
    judge: JudgeClient,
    executor: Executor,
    report: ProgressCallback,
    stop: threading.Event,
) -> ScoreProgress:
    candidate_input = open_candidate_input(settings, corpus)
    plan = plan_of(settings, corpus, judge.identity, candidate_input)
    start_plan(settings.out, plan)
    todo = plan.parts.missing(settings.out)
    tally = _Tally(plan, len(todo), report)
    try:
        questions = await asyncio.to_thread(pair_source_of, settings, corpus, candidate_input, stop)
    except Stopped:
        return tally.progress
    tally.begin()
    await executor.run(ShardInputs(plan, corpus, questions, judge), todo, tally.add, stop)
    earlier = sorted(set(range(len(plan.parts))) - set(todo))
    totals = await asyncio.to_thread(_totals, settings.out, plan, earlier, tally.progress)
    return replace(tally.progress, totals=totals)


def _totals(
    folder: Path, plan: ScoreManifest, earlier: Sequence[int], run: ScoreProgress
) -> ScoreTotals:
    """Returns the counts of this run and of the shards that earlier runs wrote."""
    found = [counts_of(folder, plan, shard) for shard in earlier]
    counted = [counts for counts in found if counts is not None]
    uncounted = len(found) - len(counted)
    return ScoreTotals(
        shards=run.shards_done,
        shards_counted=run.shards_done - uncounted,
        counts=sum(counted, run.counts),
    )


class _Tally:
    """Adds up the counts of shards, and reports progress."""

    def __init__(self, plan: ScoreManifest, todo: int, report: ProgressCallback):
        self._begun, self._report = time.monotonic(), report
        before = len(plan.parts) - todo
        self.progress = ScoreProgress(len(plan.parts), before, before, ShardCounts(), 0.0)
        report(self.progress)

    def begin(self) -> None:
        """Starts the clock. The time before was not spent scoring."""
        self._begun = time.monotonic()

    def add(self, counts: ShardCounts) -> None:
        """Adds a written shard."""
        done, counts = self.progress.shards_done + 1, self.progress.counts + counts
        self.progress = replace(
            self.progress, shards_done=done, counts=counts, seconds=time.monotonic() - self._begun
        )
        self._report(self.progress)
