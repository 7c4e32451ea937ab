"""Which rows make which batch: decided by the seed and the place in the run alone, on any number of processes.

An update takes `accumulation_steps` batches of an endless row of epochs. Processes share an update's batches out, so
the update is the same however many there are, and so is a run that goes on with more or fewer of them.
"""

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from unijudge.formats.lazy_table import Rows


class BatchSampler:
    """The order of the rows of one training."""

    def __init__(self, groups: npt.NDArray[np.integer], *, batch_size: int, accumulation_steps: int, seed: int):
        """Rows of one group make batches of their own; with one group, any rows do.

        Args:
            groups: (rows), the group of each row.
            batch_size: Rows in a batch. The last one of a group and epoch may be shorter.
            accumulation_steps: Batches in an update.
            seed: Of all permutations, at least 0.
        """
        self._groups = groups
        self._size = batch_size
        self.accumulation_steps = accumulation_steps
        self._seed = seed
        self._epoch = lru_cache(maxsize=2)(self._batches_of_epoch)
        self._in_epoch = int(sum(-(-count // batch_size) for count in np.unique(groups, return_counts=True)[1]))

    def batches(self, step: int) -> list[Rows]:
        """The batches of one update, as row numbers. Every row stands in exactly one batch of an epoch.

        Args:
            step: The update, from 1.

        Example:
            >>> order = BatchSampler(np.array([0, 0, 0, 1]), batch_size=2, accumulation_steps=3, seed=0)
            >>> sorted(sorted(rows.tolist()) for rows in order.batches(step=1))[-1]  # the one row of group 1
            [3]
        """
        places = range((step - 1) * self.accumulation_steps, step * self.accumulation_steps)
        return [self._epoch(place // self._in_epoch)[place % self._in_epoch] for place in places]

    def dice(self, step: int, place: int) -> int:
        """The seed of what is drawn at random (dropout) in one batch of an update, in [0, 2⁶⁴)."""
        return int(np.random.SeedSequence((self._seed, step, place)).generate_state(1, np.uint64)[0])

    def _batches_of_epoch(self, epoch: int) -> list[Rows]:
        random = np.random.default_rng((self._seed, epoch))
        rows = random.permutation(len(self._groups))
        rows = rows[np.argsort(self._groups[rows], kind="stable")]
        ends = np.flatnonzero(np.diff(self._groups[rows])) + 1
        cut = [group[start : start + self._size] for group in np.split(rows, ends)
               for start in range(0, len(group), self._size)]  # fmt: skip
        return [cut[place] for place in random.permutation(len(cut))]
