"""Draws a random sample of rows for a measurement. The sample is the same on every run. Pure.

Rows are never evenly spaced: captioned images alternate by direction, so a step of two would see only one direction.
"""

from collections.abc import Sequence

import numpy as np

from unijudge.formats.lazy_table import Rows


def drawn(size: int, number: int, seed: int = 0) -> Rows:
    """Draws `number` distinct rows out of `size`, or all rows if there are fewer. Returns them ascending."""
    generator = np.random.default_rng(seed)
    rows = generator.choice(size, min(size, number), replace=False)
    return np.sort(rows).astype(np.int64)


def stratified(strata: Sequence[str], number: int, seed: int = 0) -> Rows:
    """Draws distinct rows so that each stratum gets its proportional share, rounded down or up.

    Args:
        strata: The stratum of each row.
        number: How many rows to draw. If there are fewer rows, all are drawn.
        seed: The seed of the draw.

    Returns:
        Indexes into `strata`, in random order.

    Example:
        >>> names = ["i2t", "t2i"] * 50
        >>> sorted(names[row] for row in stratified(names, 4))
        ['i2t', 'i2t', 't2i', 't2i']
    """
    generator = np.random.default_rng(seed)
    size = len(strata)
    number = min(size, number)
    _, kinds = np.unique(np.asarray(strata), return_inverse=True)

    # Rows are sorted by stratum and shuffled within each. Equal steps then hit each stratum in proportion to its size.
    shuffled = generator.random(size)
    order = np.lexsort((shuffled, kinds))
    first = generator.random()
    steps = (np.arange(number) + first) * size / max(1, number)
    rows = order[steps.astype(np.int64)]
    return generator.permutation(rows).astype(np.int64)
