"""How small a difference of precision@1 an evaluation can tell, and how many queries a smaller one needs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from trainer.studies.statistics import NORMAL, Difference, Interval

CHANGED = 0.2
"""The share of queries whose result differs between two systems. Students of the demo's world, trained from one base
on the same queries with other negatives or losses, differed in 0.14 to 0.32 of 4,000 results, mostly in a fifth."""


@dataclass(frozen=True)
class Power:
    """The smallest difference of two systems, paired by query, that a 95 % interval tells from zero.

    A query gives a difference of −1, 0 or 1. If a share c of the queries gives another one than 0, the variance of the
    differences is at most c, so the interval of their mean over Q queries is ± 1.96 √(c / Q). The smallest difference
    is the half-width, and a difference δ needs Q = 1.96² c / δ² queries. A true difference of just that size is found
    in half of all evaluations; in four of five it needs (1.96 + 0.84)² / 1.96² = 2.04 times as many queries.

    Source:
        McNemar, "Note on the sampling error of the difference between correlated proportions or percentages",
        Psychometrika 12(2), 1947. Its variance is c − δ²; δ² is small.
    """

    queries: int
    smallest: float
    """In (0, 1]."""

    @classmethod
    def of(cls, subsets: Mapping[str, Mapping[str, float]], changed: float = CHANGED) -> Self | None:
        """Of one evaluation, with an assumption about the system that it is compared with; None without queries.

        A share c = min(changed, 2 p (1 − p)) of the results of a subset differs, where p is its precision@1: two
        systems that are right independently of one another differ in 2 p (1 − p). p is (right + 2) / (Q + 4), since
        nothing would differ where all results are right. The mean over S subsets has the variance Σ c / Q / S².

        Args:
            subsets: Subset → measure → value, as in metrics.json.
            changed: The share of queries whose result differs. At most 1.

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
        """Of two systems that were compared: half of the interval of their difference, with no assumption."""
        return cls(queries, (over_queries[1] - over_queries[0]) / 2)

    def needed(self, detect: float) -> int:
        """How many queries a difference needs, each subset with its share of them.

        Example:
            >>> Power(queries=1000, smallest=0.04).needed(0.02)
            4000
        """
        return math.ceil(round(self.queries * (self.smallest / detect) ** 2, 6))

    def lacking(self, detect: float | None) -> str | None:
        """That there are too few queries to tell a difference, and how many are needed; None where there are enough."""
        if detect is None or detect >= self.smallest:
            return None
        return (
            f"{self.queries:,} queries are too few to tell a difference of {detect:g}: {self.needed(detect):,} are "
            "needed, and twice as many to find it four times in five. Evaluate on more queries, or look for a larger "
            "difference (`detect`)"
        )


def powers(found: Sequence[tuple[str, Difference]], detect: float | None) -> list[str]:
    """A sentence for each measure of rankings: how small a difference its queries tell, and how many `detect` needs.

    Args:
        found: (measure, difference) of each comparison.
        detect: The difference that is looked for, if one is.
    """
    said = []
    for measure in dict.fromkeys(name for name, _ in found):
        differences = [difference for name, difference in found if name == measure]
        every = [Power.measured(one.queries, one.over_queries) for one in differences if one.over_queries]
        # Where nothing varies, an interval has no width and says nothing of other queries.
        made = [power for power in every if power.smallest]
        if not made:
            continue
        best, worst = (pick(made, key=lambda power: power.smallest) for pick in (min, max))
        sizes = dict.fromkeys(f"{power.smallest:.3f}" for power in (best, worst))
        sentence = (
            f"With {worst.queries:,} queries, the smallest difference of {measure} that can be told is "
            f"{' to '.join(sizes)} (95 %, paired by query)."
        )
        if doubt := worst.lacking(detect):
            sentence += f" {doubt}."
        said.append(sentence)
    return said
