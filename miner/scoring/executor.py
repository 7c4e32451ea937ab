"""What a scoring job asks of whoever scores its shards: this process, or a cluster."""

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from miner.scoring.shard_scorer import ShardCounts, ShardInputs


class Executor(Protocol):
    """Scores the shards of one job."""

    def connected(self) -> AbstractContextManager[None]:
        """Holds what the executor needs from outside, such as a connection to its cluster.

        Raises:
            SettingsError: It cannot be had with these settings.
        """

    async def run(
        self,
        inputs: ShardInputs,
        shards: Sequence[int],
        add: Callable[[ShardCounts], None],
        stop: threading.Event,
    ) -> None:
        """Scores and writes shards. When `stop` is set, the shards in work finish and no other one begins.

        Args:
            inputs: What the shards are scored from.
            shards: Their numbers.
            add: Is called after each shard.
            stop: Whether to end early.

        Raises:
            UnijudgeError: What stopped a shard, alone or inside an ExceptionGroup.
        """
