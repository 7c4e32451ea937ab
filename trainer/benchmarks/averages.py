"""Turns the measures of each set into the numbers of a table: shares with intervals, and plain means of shares.

An average exists only if all of its parts were measured. An average never skips a missing part and never counts a
missing part as zero. If a part is partial, the average is partial.
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
    """The measured share, in [0, 1]."""
    low: float
    """The lower end of the 95 % bootstrap interval over queries. `high` is the upper end."""
    high: float
    partial: bool
    """Whether the number of queries differs from the published number."""


def average_cells(
    measured: Mapping[str, Mapping[str, float]],
    expected: Mapping[str, int],
    averages: Iterable[Average],
) -> dict[str, AverageCell]:
    """Returns the cell of every measured subset, and the cell of every average whose parts were all measured.

    Args:
        measured: Subset → measures, with `queries` and `precision@1`.
        expected: Subset → published number of queries.
        averages: The averages, each after the averages of which it consists.

    Returns:
        Name → cell. The interval of an average comes from the means of its parts' bootstrapped shares, which are drawn
        independently.

    Example:
        >>> found = average_cells({"a": {"queries": 4, "precision@1": 1.0}}, {"a": 5}, [Average("all", ("a", "b"))])
        >>> found
        {'a': AverageCell(value=1.0, low=1.0, high=1.0, partial=True)}
    """
    values: dict[str, float] = {}
    draws: dict[str, Floats] = {}
    partial: dict[str, bool] = {}
    for name, measures in measured.items():
        queries = int(measures["queries"])
        values[name] = measures["precision@1"]
        draws[name] = bootstrap_shares(values[name], queries, name)
        partial[name] = measures["queries"] != expected[name]

    # An average may be a part of a later average.
    for average in averages:
        if values.keys() >= set(average.of):
            name = average.name
            values[name] = float(np.mean([values[part] for part in average.of]))
            draws[name] = np.mean([draws[part] for part in average.of], axis=0)
            partial[name] = any(partial[part] for part in average.of)

    cells = {}
    for name, value in values.items():
        low, high = interval(draws[name])
        cells[name] = AverageCell(value, low, high, partial[name])
    return cells
