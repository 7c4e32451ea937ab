"""The interface of an executor, which scores the shards of a job in this process or on a cluster."""

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from miner.scoring.shard_scorer import ShardInputs
from unijudge.formats.scores import ShardCounts


class Executor(Protocol):
    """Scores the shards of one job."""

    def connected(self) -> AbstractContextManager[None]:
        """Opens a connection to the cluster, if the executor needs one, and closes it at the end of the block.

        Raises:
            SettingsError: The connection fails with these settings.
        """

    async def run(
        self,
        inputs: ShardInputs,
        shards: Sequence[int],
        add: Callable[[ShardCounts], None],
        stop: threading.Event,
    ) -> None:
        """Scores and writes shards. When `stop` is set, the running shards are finished, and no other shard is started.

        Args:
            inputs: The plan, the corpus, the pairs of each query, and the judge.
            shards: The numbers of the shards.
            add: A function that gets the counts of each finished shard.
            stop: An event that ends the job early.

        Raises:
            UnijudgeError: What stopped a shard, alone or inside an ExceptionGroup.
        """
