"""The assignment of rows to batches, which depends on the seed and the step, not on the number of processes.

An update takes the next `accumulation_steps` batches from an endless sequence of epochs. The processes share the
batches of an update, so the number of processes does not change the update. A run may resume with more or fewer
processes.
"""

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from unijudge.formats.lazy_table import Rows


class BatchSampler:
    """The order of the rows of one training."""

    def __init__(
        self,
        groups: npt.NDArray[np.integer],
        *,
        batch_size: int,
        accumulation_steps: int,
        seed: int,
    ):
        """Stores the groups. A batch holds rows of one group only.

        Args:
            groups: (rows), the group of each row.
            batch_size: The number of rows in a batch. The last batch of a group may be shorter in each epoch.
            accumulation_steps: The number of batches in an update.
            seed: The random seed of all permutations, at least 0.
        """
        self._groups = groups
        self._size = batch_size
        self.accumulation_steps = accumulation_steps
        self._seed = seed
        self._epoch = lru_cache(maxsize=2)(self._batches_of_epoch)
        self._in_epoch = int(
            sum(-(-count // batch_size) for count in np.unique(groups, return_counts=True)[1])
        )

    def batches(self, step: int) -> list[Rows]:
        """Returns the batches of an update, as row numbers. Every row is in exactly one batch of an epoch.

        Args:
            step: The number of the update, from 1.

        Example:
            >>> order = BatchSampler(np.array([0, 0, 0, 1]), batch_size=2, accumulation_steps=3, seed=0)
            >>> sorted(sorted(rows.tolist()) for rows in order.batches(step=1))[-1]  # the one row of group 1
            [3]
        """
        numbers = range((step - 1) * self.accumulation_steps, step * self.accumulation_steps)
        return [
            self._epoch(number // self._in_epoch)[number % self._in_epoch] for number in numbers
        ]

    def dice(self, step: int, place: int) -> int:
        """Returns the random seed of one batch of an update, for example for dropout, in [0, 2⁶⁴)."""
        return int(
            np.random.SeedSequence((self._seed, step, place)).generate_state(1, np.uint64)[0]
        )

    def _batches_of_epoch(self, epoch: int) -> list[Rows]:
        random = np.random.default_rng((self._seed, epoch))
        rows = random.permutation(len(self._groups))
        rows = rows[np.argsort(self._groups[rows], kind="stable")]

        # A batch has rows of one group, and the last batch of a group may be smaller.
        ends = np.flatnonzero(np.diff(self._groups[rows])) + 1
        batches: list[Rows] = []
        for group in np.split(rows, ends):
            starts = range(0, len(group), self._size)
            batches += [group[start : start + self._size] for start in starts]
        return [batches[index] for index in random.permutation(len(batches))]
