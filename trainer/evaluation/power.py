"""The smallest difference of precision@1 that an evaluation can detect, and how many queries a smaller one needs."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

Interval = tuple[float, float]
"""The ends of a 95 % interval, (low, high)."""
NORMAL = 1.960
"""The 97.5 % quantile of the normal distribution."""
CHANGED = 0.2
"""The assumed share of queries whose result differs between two systems. In the demo, students with the same base and
the same queries but other negatives or losses differed in 14 % to 32 % of 4,000 results, mostly in 20 %."""


@dataclass(frozen=True)
class Power:
    """The smallest difference between two systems, paired by query, that a 95 % interval distinguishes from zero.

    A query gives a difference of −1, 0 or 1. If the difference is not 0 for a share c of the queries, the variance of
    the differences is at most c. So the interval of their mean over Q queries is ± 1.96 √(c / Q). The smallest
    difference is the half-width, and a difference δ needs Q = 1.96² c / δ² queries. Half of all evaluations detect a
    true difference of exactly this size. To detect it in four of five evaluations, (1.96 + 0.84)² / 1.96² = 2.04 times
    as many queries are needed.

    Source:
        McNemar, "Note on the sampling error of the difference between correlated proportions or percentages",
        Psychometrika 12(2), 1947. The variance there is c − δ²; δ² is small.
    """

    queries: int
    smallest: float
    """The smallest difference, in (0, 1]."""

    @classmethod
    def of(
        cls, subsets: Mapping[str, Mapping[str, float]], changed: float = CHANGED
    ) -> Self | None:
        """Estimates the power of one evaluation, with an assumption about the other system. None without queries.

        The assumed share of different results in a subset is c = min(changed, 2 p (1 − p)), where p is the precision@1
        of the subset: the results of two independent systems differ in a share of 2 p (1 − p). p is estimated as
        (right + 2) / (Q + 4), since otherwise c would be 0 if all results are right. The mean over S subsets has the
        variance Σ c / Q / S².

        Args:
            subsets: Subset → measure → value, as in metrics.json.
            changed: The assumed share of queries whose result differs. At most 1.

        Source:
            Agresti and Coull, "Approximate is better than exact for interval estimation of binomial proportions", The
            American Statistician 52(2), 1998.

        Example:
            >>> Power.of({"all": {"queries": 4000, "precision@1": 0.45}}).smallest  # 1.96 √(0.2 / 4000)
            0.013859...
        """
        variances, queries = [], 0
        for measures in subsets.values():
            count = int(measures["queries"])
            if count:
                right = (measures["precision@1"] * count + 2) / (count + 4)
                variances.append(min(changed, 2 * right * (1 - right)) / count)
                queries += count
        if not queries:
            return None
        return cls(queries, NORMAL * math.sqrt(sum(variances)) / len(variances))

    @classmethod
    def measured(cls, queries: int, over_queries: Interval) -> Self:
        """Returns the power of a comparison of two systems: half the interval of their difference. Assumes nothing."""
        return cls(queries, (over_queries[1] - over_queries[0]) / 2)

    def needed(self, detect: float) -> int:
        """Returns how many queries a difference needs, if the shares of the subsets stay the same.

        Example:
            >>> Power(queries=1000, smallest=0.04).needed(0.02)
            4000
        """
        return math.ceil(round(self.queries * (self.smallest / detect) ** 2, 6))

    def lacking(self, detect: float | None) -> str | None:
        """Returns a warning with the needed number if there are too few queries to detect a difference, else None."""
        if detect is None or detect >= self.smallest:
            return None
        return (
            f"{self.queries:,} queries are too few to detect a difference of {detect:g}: {self.needed(detect):,} are "
            "needed, and twice as many to detect the difference in four of five evaluations. Evaluate on more queries, "
            "or set a larger difference (`detect`)"
        )
