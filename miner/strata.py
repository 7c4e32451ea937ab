"""Which rows a measurement looks at: random ones, the same on every run. Pure.

Never evenly spaced ones: captioned images alternate by direction, so a step of two would see one direction alone.
"""

from collections.abc import Sequence

import numpy as np

from unijudge.formats.lazy_table import Rows


def drawn(size: int, number: int, seed: int = 0) -> Rows:
    """`number` distinct rows of `size`, or all of them; ascending."""
    dice = np.random.default_rng(seed)
    return np.sort(dice.choice(size, min(size, number), replace=False)).astype(np.int64)


def stratified(strata: Sequence[str], number: int, seed: int = 0) -> Rows:
    """`number` distinct places, or all of them, in random order; of each stratum its share, to the next whole number.

    Args:
        strata: Of each place, to which stratum it belongs.
        number: How many places.
        seed: Of the draw.

    Example:
        >>> names = ["i2t", "t2i"] * 50
        >>> sorted(names[place] for place in stratified(names, 4))
        ['i2t', 'i2t', 't2i', 't2i']
    """
    dice = np.random.default_rng(seed)
    size, number = len(strata), min(len(strata), number)
    _, kinds = np.unique(np.asarray(strata), return_inverse=True)
    # Places by stratum, in random order within each: equal steps meet every stratum as often as it is large.
    order = np.lexsort((dice.random(size), kinds))
    steps = (np.arange(number) + dice.random()) * size / max(1, number)
    return dice.permutation(order[steps.astype(np.int64)]).astype(np.int64)
