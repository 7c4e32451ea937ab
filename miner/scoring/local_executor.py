"""A scoring job's shards in this process: two groups at once, in order, each question asked once."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain

from miner.retrieval.pools import repeated_questions
from miner.scoring.score_cache import ScoreCache
from miner.scoring.shard_scorer import ShardInputs, ShardScorer
from miner.settings import ScoreSettings
from unijudge.formats.scores import ShardCounts

SHARDS_AT_ONCE = 2
"""Number of groups of shards that run at the same time. While the first one waits for its slowest query, the second one
keeps the service busy."""


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
        size = settings.shards_together
        left = iter([shards[start : start + size] for start in range(0, len(shards), size)])

        async def worker() -> None:
            for together in left:
                if stop.is_set():
                    return
                for counts in await scorer.score(*together):
                    add(counts)

        async with asyncio.TaskGroup() as workers:
            for _ in range(SHARDS_AT_ONCE):
                workers.create_task(worker())
