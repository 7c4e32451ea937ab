"""The sets that the benchmarks declare, their published numbers, and the averages."""

import numpy as np
import pytest

from trainer.benchmarks import mmeb, sugarcrepe
from trainer.benchmarks.averages import average_cells
from trainer.benchmarks.published import published
from trainer.benchmarks.registry import AVERAGES, SETS
from trainer.benchmarks.spec import Average
from unijudge.metrics import bootstrap_shares, interval, modality_gap

TASKS = [10, 10, 12, 4]


def table(title):
    return next(one for one in published().tables if one.title.startswith(title))


def test_the_benchmarks_are_as_large_as_published():
    parts = {average.name: average.of for average in AVERAGES}
    assert [len(parts[task]) for task in mmeb.TASKS] == TASKS
    assert (len(parts["IND"]), len(parts["OOD"]), len(set(parts["Overall"]))) == (20, 16, 36)
    assert [
        len(parts[name]) for name in ("Replace", "Swap", "Add", "R_Short", "R_Long", "R_Compos")
    ] == [
        3,
        2,
        2,
        4,
        4,
        3,
    ]
    assert sum(sugarcrepe.SETS[0].queries.values()) == 7511
    counts = {subset: count for one in SETS for subset, count in one.queries.items()}
    assert (counts["flickr30k_t2i"], counts["flickr30k_i2t"]) == (5000, 1000)
    assert (counts["coco_t2i"], counts["coco_i2t"]) == (25000, 5000)
    assert {counts[name] for name in parts["Overall"]} == {1000}
    known = set(counts)
    for average in AVERAGES:
        assert set(average.of) <= known
        known.add(average.name)


def test_published_overall_numbers_are_the_means_that_their_rows_say():
    """A wrong digit in a number would be found: tasks are weighted by their sets, except in marked rows."""
    mmeb_table = table("MMEB")
    for name, (*tasks, _, _, overall) in mmeb_table.rows.items():
        unweighted = name in mmeb_table.class_means
        assert overall == pytest.approx(
            np.average(tasks, weights=None if unweighted else TASKS), abs=0.11
        ), name
        assert unweighted == (
            abs(overall - np.mean(tasks)) < abs(overall - np.average(tasks, weights=TASKS))
        ), name


def test_published_summaries_follow_from_the_other_tables():
    zero_shot, summary = table("Zero-shot").rows, table("Summary").rows
    for name in (
        "UniME Qwen2-VL 2B",
        "UniME Qwen2-VL 7B",
        "UniME-V2 Qwen2-VL 2B",
        "UniME-V2 Qwen2-VL 7B",
    ):
        numbers = zero_shot[name]
        means = [np.mean(numbers[:4]), np.mean(numbers[4:8]), np.mean(numbers[8:])]
        assert summary[name] == pytest.approx([table("MMEB").rows[name][-1], *means], abs=0.051), (
            name
        )


def test_averages_of_averages_by_hand():
    measured = {
        "a": {"queries": 10, "precision@1": 0.5},
        "b": {"queries": 10, "precision@1": 0.7},
        "c": {"queries": 9, "precision@1": 0.2},
    }
    averages = [
        Average("ab", ("a", "b")),
        Average("abc", ("ab", "c")),
        Average("all", ("abc", "gone")),
    ]
    cells = average_cells(measured, {"a": 10, "b": 10, "c": 10}, averages)
    assert set(cells) == {"a", "b", "c", "ab", "abc"}, "what lacks a part is not there"
    assert cells["ab"].value == pytest.approx(0.6)
    assert cells["abc"].value == pytest.approx(0.4)  # the mean of two values, not of three
    assert [name for name, cell in cells.items() if cell.partial] == ["c", "abc"]
    assert all(cell.low <= cell.value <= cell.high for cell in cells.values())
    again = average_cells({"b": measured["b"]}, {"b": 10}, averages)
    assert again["b"] == cells["b"], "an interval does not depend on what else was measured"


def test_the_interval_equals_a_bootstrap_over_queries():
    """The interval is compared with a bootstrap that draws the queries themselves, and with the normal
    approximation.
    """
    hits_Q = np.arange(400) % 10 < 3
    drawn = np.random.default_rng(1).choice(hits_Q, (10_000, 400)).mean(1)
    ours = bootstrap_shares(0.3, 400, "set")
    assert ours.std() == pytest.approx(drawn.std(), rel=0.05)
    assert interval(ours) == pytest.approx(interval(drawn), abs=0.006)
    assert interval(ours) == pytest.approx((0.3 - 1.96 * 0.0229, 0.3 + 1.96 * 0.0229), abs=0.006)
    assert np.array_equal(ours, bootstrap_shares(0.3, 400, "set"))
    pair = average_cells(
        {name: {"queries": 400, "precision@1": 0.3} for name in "ab"},
        {"a": 400, "b": 400},
        [Average("m", ("a", "b"))],
    )["m"]
    assert pair.high - pair.low == pytest.approx(
        (interval(ours)[1] - interval(ours)[0]) / np.sqrt(2), rel=0.1
    )


def test_the_gap_of_one_kind_is_not_defined():
    assert np.isnan(modality_gap(np.zeros((0, 2)), np.eye(2)))
    assert modality_gap(np.eye(2), np.eye(2)[::-1]) == 0
    assert modality_gap(np.array([[1.0, 0.0]]), np.array([[-1.0, 0.0]])) == 2
