"""A scoring job's shards as Ray tasks: each finds its inputs on storage that all machines see, and writes its file.

A task that dies with its machine is run again elsewhere, twice at most; then the other shards go on without it. Since a
shard is one file, whole or absent, nothing is lost and nothing is written twice. A question that rows of several shards
ask may be asked by each of their tasks.
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
from miner.scoring.plan import pair_source_of
from miner.scoring.score_cache import ScoreCache
from miner.scoring.service import open_client
from miner.scoring.shard_scorer import ShardCounts, ShardInputs, ShardScorer
from miner.settings import ScoreSettings
from unijudge.errors import JudgeChanged, SettingsError, TaskFailed, UnijudgeError, first_error
from unijudge.formats.corpus import Corpus
from unijudge.formats.scores import ScoreManifest
from unijudge.provenance import without_passwords
from unijudge.shown import shown
from unijudge.storage.access_errors import LONGEST_REASON, in_one_line
from unijudge.storage.files import DRAFT_SUFFIX
from unijudge.storage.locations import WHOLE, is_local

RETRIES = 2
"""How often Ray starts a task again whose process or machine died; one that kills every worker must come to an end."""
MOST_FAILED = 5
"""Shards whose tasks died: after more of them no other is begun, since it is not the shards that are at fault."""
LOOK_EVERY_S = 1.0
"""How often the driver looks whether it was asked to stop."""
TELL_EVERY_S = 60.0
"""How often it is said that no shard has ended."""

logger = logging.getLogger(__name__)


class RayExecutor:
    """The `Executor` of `engine = "ray"`."""

    def __init__(self, settings: ScoreSettings):
        """Connects to nothing yet."""
        self._settings = settings

    @contextmanager
    def connected(self) -> Iterator[None]:
        """A connection to the cluster, unless there is one; what a killed job's tasks left half-written is removed.

        Raises:
            SettingsError: No cluster answers there, or it does not let us in.
        """
        settings = self._settings
        own = not ray.is_initialized()
        host, _, port = settings.ray_address.removeprefix("ray://").rpartition(":")
        try:
            if own and host:  # whether anybody listens there: Ray itself would wait for minutes
                socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
            if own:
                ray.init(address=settings.ray_address, log_to_driver=False)
        except (OSError, RuntimeError, ValueError, RayError) as error:
            raise SettingsError(
                f"ray_address: no Ray cluster lets us in at {shown(settings.ray_address)} ({in_one_line(error)}); is "
                "it running, and are RAY_AUTH_MODE and the token here those of the cluster?"
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
        self, inputs: ShardInputs, shards: Sequence[int], add: Callable[[ShardCounts], None], stop: threading.Event
    ) -> None:
        """Scores shards on the cluster, a bounded number at once. See `Executor.run`.

        Raises:
            UnijudgeError: What stopped a task; the others in work are waited for.
            TaskFailed: Tasks died as often as they were tried, and the other shards are done; or the cluster is lost.
        """
        try:
            faults = await asyncio.to_thread(self._run_all, inputs.plan, shards, add, stop)
        except RayError as error:
            raise TaskFailed(
                f'engine = "ray": the cluster was lost ({in_one_line(error)}). See that it runs; the same command goes '
                "on with what is missing"
            ) from error
        _raise_first(faults)

    def _run_all(
        self, plan: ScoreManifest, shards: Sequence[int], add: Callable[[ShardCounts], None], stop: threading.Event
    ) -> dict[int, UnijudgeError]:
        """Runs the tasks; of each shard that failed, why. A task that died stops no other, an error of ours does."""
        task = ray.remote(max_retries=RETRIES, num_cpus=1)(_score_shard)
        texts = (self._settings.absolute().model_dump_json(context=WHOLE), plan.model_dump_json())
        left = iter(shards)
        working: list[Any] = []
        shard_of: dict[Any, int] = {}
        faults: dict[int, UnijudgeError] = {}
        quiet_since = time.monotonic()
        while True:
            while len(working) < self._settings.ray_concurrency and not stop.is_set() and not _is_hopeless(faults):
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
    """Returns if no shard failed; an error of ours goes before tasks that died.

    Raises:
        UnijudgeError: Why the first shard failed.
    """
    own = [fault for fault in faults.values() if not isinstance(fault, TaskFailed)]
    if own:
        raise own[0]
    if len(faults) > 1:
        first, *others = faults
        also = ", ".join(map(str, others[:MOST_FAILED]))
        raise TaskFailed(f"{faults[first]}. So did {len(others)} more: shard {also}") from faults[first]
    for fault in faults.values():
        raise fault


def _is_hopeless(faults: Mapping[int, UnijudgeError]) -> bool:
    """Whether the shards that are left would fail as well."""
    return len(faults) > MOST_FAILED or any(not isinstance(fault, TaskFailed) for fault in faults.values())


def _tell_wait(tasks: int) -> None:
    free, all_ = (resources().get("CPU", 0) for resources in (ray.available_resources, ray.cluster_resources))
    logger.info(
        "no shard has ended for %.0f s: %d in work or waiting; %g of the cluster's %g CPUs are free",
        TELL_EVERY_S, tasks, free, all_,
    )  # fmt: skip


def _fault(shard: int, error: RayError) -> UnijudgeError:
    """What to raise for a task that Ray gave up: its own error, or that of its machine."""
    cause = error.cause if isinstance(error, RayTaskError) else None
    if isinstance(cause, UnijudgeError):
        return cause
    lines = str(cause or error).strip().splitlines() or [type(error).__name__]
    return TaskFailed(
        f"shard {shard}: its task failed, and was tried {RETRIES + 1} times where its process died "
        f"({lines[0][:LONGEST_REASON]}). See the log of its worker on the cluster: it may have run out of memory; the "
        "same command goes on with what is missing"
    )


def _score_shard(settings_text: str, plan_text: str, shard: int) -> ShardCounts:
    """What one task does."""
    settings = ScoreSettings.model_validate_json(settings_text)
    plan = ScoreManifest.model_validate_json(plan_text)
    corpus, questions, known = _inputs(settings_text, plan_text)

    async def run() -> ShardCounts:
        async with open_client(settings) as judge:
            if judge.identity != plan.judge:
                service = without_passwords(settings.service)
                raise JudgeChanged(f"{service}: begun with {plan.judge}, but now {judge.identity} answers")
            inputs = ShardInputs(plan, corpus, questions, judge)
            repeated = repeated_questions(corpus, plan.parts.rows_of(shard))
            # A task is run again while its first machine is only cut off: then two write one shard.
            return await ShardScorer(settings, inputs, known, repeated, rivals=True).score(shard)

    try:
        return asyncio.run(run())
    except* UnijudgeError as group:
        raise first_error(group) from None


@lru_cache(maxsize=1)
def _inputs(settings_text: str, plan_text: str) -> tuple[Corpus, PairSource, ScoreCache]:
    """Read once in each worker process."""
    settings = ScoreSettings.model_validate_json(settings_text)
    plan = ScoreManifest.model_validate_json(plan_text)
    corpus = Corpus(settings.corpus)
    return corpus, pair_source_of(settings, corpus), ScoreCache([*settings.reuse, settings.out], plan.judge)
