"""Scores the shards of a job as Ray tasks. Each task reads its inputs from shared storage, and writes its shard.

A task that dies with its machine is retried on another machine at most twice. Then the other shards continue without
this shard. A shard is one file, complete or absent, so that no shard is lost or written twice. A query that rows of
several shards have in common may be asked by each task.
"""

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from miner.retrieval.pools import repeated_questions
from miner.scoring.pairs import PairSource
from miner.scoring.plan import open_candidate_input, pair_source_of
from miner.scoring.score_cache import ScoreCache
from miner.scoring.service import open_client
from miner.scoring.shard_scorer import ShardInputs, ShardScorer
from miner.settings import ScoreSettings
from unijudge.errors import JudgeChanged, SettingsError, TaskFailed, UnijudgeError, first_error
from unijudge.formats.corpus import Corpus
from unijudge.formats.scores import ScoreManifest, ShardCounts
from unijudge.provenance import without_passwords
from unijudge.shown import shown
from unijudge.storage.access_errors import LONGEST_REASON, in_one_line
from unijudge.storage.files import DRAFT_SUFFIX
from unijudge.storage.locations import WHOLE, is_local

RETRIES = 2
"""How often Ray retries a task whose process or machine died. The limit stops a task that kills every worker."""
MOST_FAILED = 5
"""Largest number of shards whose tasks died. After more failures no shard is started, because the cause is not a
shard."""
LOOK_EVERY_S = 1.0
"""Seconds between two checks for a stop."""
TELL_EVERY_S = 60.0
"""Seconds without a finished shard until a log line reports this."""

logger = logging.getLogger(__name__)


class RayExecutor:
    """The `Executor` for `engine = "ray"`."""

    def __init__(self, settings: ScoreSettings):
        """Connects to nothing yet."""
        self._settings = settings

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Connects to the cluster, unless there is a connection. Removes unfinished files of a killed job's tasks.

        Raises:
            SettingsError: The cluster does not answer, or rejects the token.
        """
        settings = self._settings
        own = not ray.is_initialized()
        host, _, port = settings.ray_address.removeprefix("ray://").rpartition(":")
        try:
            if own and host:  # without a listener, Ray itself would wait for minutes
                socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
            if own:
                ray.init(address=settings.ray_address, log_to_driver=False)
        except (OSError, RuntimeError, ValueError, RayError) as error:
            raise SettingsError(
                f"ray_address: cannot connect to the Ray cluster at {shown(settings.ray_address)} "
                f"({in_one_line(error)}). Check that it is running, and that RAY_AUTH_MODE and the token match the "
                "cluster's"
            ) from error
        if is_local(settings.out):
            for draft in settings.out.glob(f"part-*{DRAFT_SUFFIX}"):
                draft.unlink(missing_ok=True)
        try:
            yield
        finally:
            if own:
                ray.shutdown()

    async def run(
        self,
        inputs: ShardInputs,
        shards: Sequence[int],
        add: Callable[[ShardCounts], None],
        stop: threading.Event,
    ) -> None:
        """Scores shards on the cluster, a limited number at once. See `Executor.run`.

        Raises:
            UnijudgeError: An error stopped a task. The other running tasks are finished first.
            TaskFailed: Tasks died at every attempt and the other shards are done, or the cluster is lost.
        """
        try:
            faults = await asyncio.to_thread(self._run_all, inputs.plan, shards, add, stop)
        except RayError as error:
            raise TaskFailed(
                f'engine = "ray": the cluster was lost ({in_one_line(error)}). Check that it is running, then run the '
                "same command again to score the missing shards"
            ) from error
        _raise_first(faults)

    def _run_all(
        self,
        plan: ScoreManifest,
        shards: Sequence[int],
        add: Callable[[ShardCounts], None],
        stop: threading.Event,
    ) -> dict[int, UnijudgeError]:
        """Runs the tasks, and returns failed shard → error. A task's error stops the job, but a dead task does not."""
        task = ray.remote(max_retries=RETRIES, num_cpus=1)(_score_shard)
        texts = (self._settings.absolute().model_dump_json(context=WHOLE), plan.model_dump_json())
        left = iter(shards)
        working: list[Any] = []
        shard_of: dict[Any, int] = {}
        faults: dict[int, UnijudgeError] = {}
        quiet_since = time.monotonic()
        while True:
            while (
                len(working) < self._settings.ray_concurrency
                and not stop.is_set()
                and not _is_hopeless(faults)
            ):
                shard = next(left, None)
                if shard is None:
                    break
                working.append(task.remote(*texts, shard))
                shard_of[working[-1]] = shard
            if not working:
                return faults
            done, working = ray.wait(working, timeout=LOOK_EVERY_S)
            for one in done:
                shard = shard_of.pop(one)
                try:
                    add(ray.get(one))
                except RayError as error:
                    faults[shard] = _fault(shard, error)
                    logger.warning("%s", faults[shard])
            if done or time.monotonic() - quiet_since > TELL_EVERY_S:
                if not done:
                    _tell_wait(len(working))
                quiet_since = time.monotonic()


def _raise_first(faults: Mapping[int, UnijudgeError]) -> None:
    """Raises the error of a failed shard, if any shard failed. Errors of dead tasks come last.

    Raises:
        UnijudgeError: The error of the first failed shard.
    """
    own = [fault for fault in faults.values() if not isinstance(fault, TaskFailed)]
    if own:
        raise own[0]
    if len(faults) > 1:
        first, *others = faults
        also = ", ".join(map(str, others[:MOST_FAILED]))
        raise TaskFailed(
            f"{faults[first]}. Further failed shards ({len(others)}): {also}"
        ) from faults[first]
    for fault in faults.values():
        raise fault


def _is_hopeless(faults: Mapping[int, UnijudgeError]) -> bool:
    """Returns whether the remaining shards would fail too."""
    return len(faults) > MOST_FAILED or any(
        not isinstance(fault, TaskFailed) for fault in faults.values()
    )


def _tell_wait(tasks: int) -> None:
    free, all_ = (
        resources().get("CPU", 0) for resources in (ray.available_resources, ray.cluster_resources)
    )
    logger.info(
        "no shard was finished for %.0f s: %d are running or waiting, and %g of the cluster's %g CPUs are free",
        TELL_EVERY_S, tasks, free, all_,
    )  # fmt: skip


def _fault(shard: int, error: RayError) -> UnijudgeError:
    """Returns the error of a failed task: the error that the task raised, or the death of its process."""
    cause = error.cause if isinstance(error, RayTaskError) else None
    if isinstance(cause, UnijudgeError):
        return cause
    lines = str(cause or error).strip().splitlines() or [type(error).__name__]
    return TaskFailed(
        f"shard {shard}: its task failed ({lines[0][:LONGEST_REASON]}). A task whose process dies is tried "
        f"{RETRIES + 1} times. Check the log of its worker on the cluster, which may have run out of memory, then run "
        "the same command again to score the missing shards"
    )


def _score_shard(settings_text: str, plan_text: str, shard: int) -> ShardCounts:
    """Scores a shard. This function is the Ray task."""
    settings = ScoreSettings.model_validate_json(settings_text)
    plan = ScoreManifest.model_validate_json(plan_text)
    corpus, questions, known = _inputs(settings_text, plan_text)

    async def run() -> ShardCounts:
        async with open_client(settings) as judge:
            if judge.identity != plan.judge:
                service = without_passwords(settings.service)
                raise JudgeChanged(
                    f"{service}: the job was started with judge {plan.judge}, but the service runs {judge.identity}. "
                    "Start the first judge again"
                )
            inputs = ShardInputs(plan, corpus, questions, judge)
            repeated = repeated_questions(corpus, plan.parts.rows_of(shard))
            # Ray may retry a task whose first machine is only disconnected: then two tasks write one shard.
            scorer = ShardScorer(settings, inputs, known, repeated, rivals=True)
            (counts,) = await scorer.score(shard)
            return counts

    try:
        return asyncio.run(run())
    except* UnijudgeError as group:
        raise first_error(group) from None


@lru_cache(maxsize=1)
def _inputs(settings_text: str, plan_text: str) -> tuple[Corpus, PairSource, ScoreCache]:
    """Returns the inputs of a job, which each worker process reads only once."""
    settings = ScoreSettings.model_validate_json(settings_text)
    plan = ScoreManifest.model_validate_json(plan_text)
    corpus = Corpus(settings.corpus)
    return (
        corpus,
        pair_source_of(settings, corpus, open_candidate_input(settings, corpus)),
        ScoreCache([*settings.reuse, settings.out], plan.judge),
    )
