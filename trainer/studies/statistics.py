"""Differences between two rows of a study, paired by seed and by query, with 95 % intervals."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from trainer.evaluation.power import NORMAL, Interval
from trainer.studies.measures import CellReading, Floats

Finding = Literal["helped", "did harm", "no effect", "not settled"]

STUDENT = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
    2.110, 2.101, 2.093, 2.086,
)  # fmt: skip
"""The 97.5 % quantiles of Student's t for 1, 2, … degrees of freedom. For more degrees, `NORMAL` is close enough."""


@dataclass(frozen=True)
class Difference:
    """The difference between two rows: right minus left."""

    value: float
    seeds: int
    over_seeds: Interval | None
    """Student's interval over the differences of the seeds, which covers other seeds. None for a single seed."""
    over_queries: Interval | None
    """The interval over the differences of the queries, which covers other queries. The difference of a query is a mean
    over the seeds. None without rankings."""
    queries: int = 0
    """The number of queries of each side. 0 without rankings."""

    @property
    def finding(self) -> Finding:
        """The finding, which claims an effect only if every interval excludes zero, and never for a single seed."""
        if self.over_seeds is None:
            return "not settled"
        intervals = [interval for interval in (self.over_seeds, self.over_queries) if interval]
        if all(low > 0 for low, _ in intervals):
            return "helped"
        if all(high < 0 for _, high in intervals):
            return "did harm"
        return "no effect"


def difference(
    left: Mapping[int, CellReading], right: Mapping[int, CellReading]
) -> Difference | None:
    """Returns the difference of two rows, paired by seed, or None if the rows have no seed in common.

    A row that is the same for all seeds (seed −1), such as an untrained model, is compared with each seed of the other
    row.

    Raises:
        ValueError: The rankings have different queries.
    """
    pairs = _paired(left, right)
    if not pairs:
        return None
    by_seed = np.array([after.value - before.value for before, after in pairs])
    over_seeds = _student(by_seed) if len(pairs) > 1 else None
    queries = sum(len(values) for values in (pairs[0][0].by_query or {}).values())
    return Difference(float(by_seed.mean()), len(pairs), over_seeds, _over_queries(pairs), queries)


def _paired(
    left: Mapping[int, CellReading], right: Mapping[int, CellReading]
) -> list[tuple[CellReading, CellReading]]:
    seeds = sorted((left.keys() | right.keys()) - {-1}) or [-1]
    pairs = []
    for seed in seeds:
        before, after = left.get(seed, left.get(-1)), right.get(seed, right.get(-1))
        if before and after:
            pairs.append((before, after))
    return pairs


def _student(values: Floats) -> Interval:
    """Returns the interval of a mean over few independent values.

    Source:
        Student, "The probable error of a mean", Biometrika 6(1), 1908.
    """
    freedom = len(values) - 1
    quantile = STUDENT[freedom - 1] if freedom <= len(STUDENT) else NORMAL
    half = quantile * float(values.std(ddof=1)) / len(values) ** 0.5
    mean = float(values.mean())
    return mean - half, mean + half


def _over_queries(pairs: list[tuple[CellReading, CellReading]]) -> Interval | None:
    """Returns the interval of the mean over subsets. Queries are independent, and every seed has the same queries."""
    if any(before.by_query is None or after.by_query is None for before, after in pairs):
        return None
    subsets = list((pairs[0][0].by_query or {}).keys())
    mean, variance = 0.0, 0.0
    for subset in subsets:
        of_seeds = [_of_subset(before, after, subset) for before, after in pairs]
        values = np.mean(of_seeds, axis=0)
        mean += float(values.mean()) / len(subsets)
        if len(values) > 1:
            variance += float(values.var(ddof=1)) / len(values) / len(subsets) ** 2
    half = NORMAL * variance**0.5
    return mean - half, mean + half


def _of_subset(before: CellReading, after: CellReading, subset: str) -> Floats:
    left, right = ((reading.by_query or {}).get(subset) for reading in (before, after))
    if left is None or right is None or len(left) != len(right):
        raise ValueError(
            f"{subset}: the two sides have different queries. Evaluate both sides on the same corpus"
        )
    made: Floats = right - left
    return made
