"""A scoring job's shards in this process: two at once, in order, each question asked once."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain

from miner.retrieval.pools import repeated_questions
from miner.scoring.score_cache import ScoreCache
from miner.scoring.shard_scorer import ShardCounts, ShardInputs, ShardScorer
from miner.settings import ScoreSettings

SHARDS_AT_ONCE = 2
"""Number of shards that run at the same time. While the first shard waits for its slowest query, the second one keeps
the service busy."""


class LocalExecutor:
    """The `Executor` of `engine = "local"`."""

    def __init__(self, settings: ScoreSettings):
        """Reads nothing yet."""
        self._settings = settings

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Needs nothing."""
        yield

    async def run(
        self,
        inputs: ShardInputs,
        shards: Sequence[int],
        add: Callable[[ShardCounts], None],
        stop: threading.Event,
    ) -> None:
        """Scores and writes shards. See `Executor.run`."""
        settings, plan = self._settings, inputs.plan
        known = await asyncio.to_thread(ScoreCache, [*settings.reuse, settings.out], plan.judge)
        rows = None
        if len(shards) != len(plan.parts):
            rows = chain.from_iterable(map(plan.parts.rows_of, shards))
        repeated = await asyncio.to_thread(repeated_questions, inputs.corpus, rows)
        scorer = ShardScorer(settings, inputs, known, repeated)
        left = iter(shards)

        async def worker() -> None:
            for shard in left:
                if stop.is_set():
                    return
                add(await scorer.score(shard))

        async with asyncio.TaskGroup() as workers:
            for _ in range(SHARDS_AT_ONCE):
                workers.create_task(worker())
