"""The comparison of two sides of a study, over seeds and over queries."""

import numpy as np
import pytest

from trainer.studies.measures import CellReading
from trainer.studies.statistics import Difference, difference


def of(values, by_query=None):
    rows = by_query or [None] * len(values)
    return {
        seed: CellReading(value, None if row is None else {"all": np.array(row, float)})
        for seed, (value, row) in enumerate(zip(values, rows, strict=True))
    }


def test_seeds_are_paired():
    found = difference(of([0.1, 0.5]), of([0.2, 0.8]))
    # Differences 0.1 and 0.3: mean 0.2, deviation 0.1414; Student's t of one degree of freedom is 12.706.
    half = 12.706 * 0.02**0.5 / 2**0.5
    assert found.value == pytest.approx(0.2)
    assert found.over_seeds == pytest.approx((0.2 - half, 0.2 + half))
    assert found.finding == "no effect"


def test_queries_are_paired_and_averaged_over_seeds():
    left = of([0.5, 0.5], [[0, 1, 0, 1], [1, 0, 0, 1]])
    right = of([0.75, 1.0], [[1, 1, 0, 1], [1, 1, 1, 1]])
    found = difference(left, right)
    # Means over seeds of each query's difference: 0.5, 0.5, 0.5, 0.
    values = np.array([0.5, 0.5, 0.5, 0.0])
    half = 1.96 * (values.var(ddof=1) / 4) ** 0.5
    assert found.over_queries == pytest.approx((0.375 - half, 0.375 + half))


def test_one_seed_does_not_settle_an_effect():
    found = difference(of([0.1], [[0, 0, 0, 1]]), of([0.9], [[1, 1, 1, 1]]))
    assert found.over_seeds is None
    assert found.finding == "not settled"


def test_a_row_without_a_seed_is_compared_with_each_seed():
    found = difference({-1: CellReading(0.3)}, of([0.4, 0.4, 0.4]))
    assert found.seeds == 3
    assert found.finding == "helped"


def test_rows_without_a_common_seed_are_not_compared():
    assert difference({0: CellReading(0.1)}, {1: CellReading(0.2)}) is None


def test_other_queries_are_refused():
    with pytest.raises(ValueError, match="different queries"):
        difference(of([0.5], [[0, 1]]), of([0.5], [[0, 1, 1]]))


@pytest.mark.parametrize(
    ("seeds", "queries", "finding"),
    [
        ((0.1, 0.3), (0.1, 0.3), "helped"),
        ((-0.3, -0.1), (-0.3, -0.1), "did harm"),
        ((-0.1, 0.3), (0.1, 0.3), "no effect"),
        ((0.1, 0.3), (-0.1, 0.3), "no effect"),
        ((0.1, 0.3), None, "helped"),
        (None, (0.1, 0.3), "not settled"),
    ],
)
def test_an_effect_needs_both_intervals(seeds, queries, finding):
    assert Difference(0.2, 5, seeds, queries).finding == finding
