"""From what each set measured to the numbers of a table: shares with intervals, and plain means of them.

An average exists only where all of its parts were measured: none is taken over fewer sets, and what is not there never
counts as zero. One partial part makes it partial.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from trainer.benchmarks.spec import Average
from unijudge.metrics import Floats, bootstrap_shares, interval


@dataclass(frozen=True)
class AverageCell:
    """One number of a table."""

    value: float
    """In [0, 1]."""
    low: float
    """The 95 % bootstrap interval, over queries."""
    high: float
    partial: bool
    """Whether queries are missing, or too many."""


def average_cells(
    measured: Mapping[str, Mapping[str, float]], expected: Mapping[str, int], averages: Iterable[Average]
) -> dict[str, AverageCell]:
    """The cell of every subset that was measured, and of every average all of whose parts were.

    Args:
        measured: Subset → measures, with `queries` and `precision@1`.
        expected: Subset → queries, as published.
        averages: Each after those that it is made of.

    Returns:
        Name → cell. An average's interval is of the mean of its parts' bootstrapped shares, drawn independently.

    Example:
        >>> found = average_cells({"a": {"queries": 4, "precision@1": 1.0}}, {"a": 5}, [Average("all", ("a", "b"))])
        >>> found
        {'a': AverageCell(value=1.0, low=1.0, high=1.0, partial=True)}
    """
    values: dict[str, float] = {}
    draws: dict[str, Floats] = {}
    partial: dict[str, bool] = {}
    for name, measures in measured.items():
        values[name] = measures["precision@1"]
        draws[name] = bootstrap_shares(values[name], int(measures["queries"]), name)
        partial[name] = measures["queries"] != expected[name]
    for average in averages:
        if all(part in values for part in average.of):
            values[average.name] = float(np.mean([values[part] for part in average.of]))
            draws[average.name] = np.mean([draws[part] for part in average.of], axis=0)
            partial[average.name] = any(partial[part] for part in average.of)
    return {name: AverageCell(value, *interval(draws[name]), partial[name]) for name, value in values.items()}
