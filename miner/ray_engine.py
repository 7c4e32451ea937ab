"""A scoring job's shards as Ray tasks: each finds its inputs on storage that all machines see, and writes its file.

A task that dies with its machine is run again elsewhere, three times at most; since a shard is one file, whole or
absent, nothing is lost and nothing is written twice. A question that rows of several shards ask may be asked by each of
their tasks.
"""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from miner.known import KnownScores
from miner.plan import questions_of
from miner.pools import repeated_questions
from miner.questions import Questions
from miner.score import open_client
from miner.settings import ScoreSettings
from miner.shards import Counts, ShardScorer
from unijudge.corpus import Corpus
from unijudge.errors import JudgeChanged, SettingsError, TaskFailed, UnijudgeError
from unijudge.files import DRAFT_SUFFIX
from unijudge.locations import WHOLE, is_local
from unijudge.provenance import without_passwords
from unijudge.scores import ScoreManifest

RETRIES = 3
"""How often Ray starts a task again whose process or machine died; one that kills every worker must come to an end."""
LONGEST_REASON = 200
"""Characters of a foreign reason in a message."""
LOOK_EVERY_S = 1.0
"""How often the driver looks whether it was asked to stop."""


@contextmanager
def connected(settings: ScoreSettings) -> Iterator[None]:
    """A connection to the cluster, unless there is one; what a killed job's tasks left half-written is removed.

    Raises:
        SettingsError: No cluster answers there, or it does not let us in.
    """
    own = not ray.is_initialized()
    host, _, port = settings.ray_address.removeprefix("ray://").rpartition(":")
    try:
        if own and host:  # whether anybody listens there: Ray itself would wait for minutes
            socket.create_connection((host, int(port)), timeout=10).close()
        if own:
            ray.init(address=settings.ray_address, log_to_driver=False)
    except (OSError, RuntimeError, ValueError, RayError) as error:
        raise SettingsError(
            f"ray_address: no Ray cluster lets us in at {settings.ray_address!r} ({error}); is it running, and are "
            "RAY_AUTH_MODE and the token here those of the cluster?"
        ) from error
    if is_local(settings.out):
        for draft in settings.out.glob(f"part-*{DRAFT_SUFFIX}"):
            draft.unlink(missing_ok=True)
    try:
        yield
    finally:
        if own:
            ray.shutdown()


def score_shards(
    settings: ScoreSettings,
    plan: ScoreManifest,
    shards: Sequence[int],
    report: Callable[[Counts], None],
    stop: threading.Event,
) -> None:
    """Scores shards on the cluster, a bounded number at once; when stopped, those in work finish.

    Raises:
        UnijudgeError: What stopped a task; the others in work are waited for.
    """
    task = ray.remote(max_retries=RETRIES, num_cpus=1)(_score_shard)
    texts = (settings.absolute().model_dump_json(context=WHOLE), plan.model_dump_json())
    left = iter(shards)
    working: list[Any] = []
    shard_of: dict[Any, int] = {}
    fault: UnijudgeError | None = None
    while True:
        while fault is None and not stop.is_set() and len(working) < settings.tasks:
            shard = next(left, None)
            if shard is None:
                break
            working.append(task.remote(*texts, shard))
            shard_of[working[-1]] = shard
        if not working:
            break
        done, working = ray.wait(working, timeout=LOOK_EVERY_S)
        for one in done:
            shard = shard_of.pop(one)
            try:
                report(ray.get(one))
            except RayError as error:
                fault = fault or _fault(shard, error)
    if fault is not None:
        raise fault


def _fault(shard: int, error: RayError) -> UnijudgeError:
    """What to raise for a task that Ray gave up: its own error, or that of its machine."""
    cause = error.cause if isinstance(error, RayTaskError) else None
    if isinstance(cause, UnijudgeError):
        return cause
    lines = str(cause or error).strip().splitlines() or [type(error).__name__]
    return TaskFailed(
        f"shard {shard}: its task failed, and was tried {RETRIES + 1} times where its process died "
        f"({lines[0][:LONGEST_REASON]}). See the log of its worker on the cluster: it may have run out of memory. The "
        "same command goes on with what is missing"
    )


def _score_shard(settings_text: str, plan_text: str, shard: int) -> Counts:
    """What one task does."""
    settings = ScoreSettings.model_validate_json(settings_text)
    plan = ScoreManifest.model_validate_json(plan_text)
    corpus, questions, known = _inputs(settings_text, plan_text)

    async def run() -> Counts:
        async with open_client(settings) as judge:
            if judge.identity != plan.judge:
                service = without_passwords(settings.service)
                raise JudgeChanged(f"{service}: begun with {plan.judge}, but now {judge.identity} answers")
            repeated = repeated_questions(corpus, plan.rows(shard))
            return await ShardScorer(settings, plan, corpus, questions, judge, known, repeated).score(shard)

    try:
        return asyncio.run(run())
    except* UnijudgeError as group:
        raise group.exceptions[0] from None


@lru_cache(maxsize=1)
def _inputs(settings_text: str, plan_text: str) -> tuple[Corpus, Questions, KnownScores]:
    """Read once in each worker process."""
    settings = ScoreSettings.model_validate_json(settings_text)
    plan = ScoreManifest.model_validate_json(plan_text)
    corpus = Corpus(settings.corpus)
    return corpus, questions_of(settings, corpus), KnownScores([*settings.reuse, settings.out], plan.judge)
