"""The smallest difference that an evaluation can detect: computed by hand and simulated, and its warning."""

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.trainer.evaluation.measured import BOTH_WAYS, PAIRS, SWAPPED, measured
from trainer.cli import app
from trainer.evaluation.evaluate import EvaluationReport
from trainer.evaluation.power import Power
from trainer.studies.measures import CellReading
from trainer.studies.statistics import difference


def test_the_smallest_difference_by_hand():
    """A fifth of 4,000 results differ: 1.96 √(0.2 / 4000).

    Two subsets of 2,000 queries have the same variance together.
    """
    together = Power.of({"all": {"queries": 4000, "precision@1": 0.45}})
    assert (together.queries, together.smallest) == (
        4000,
        pytest.approx(1.96 * (0.2 / 4000) ** 0.5),
    )
    halves = Power.of({name: {"queries": 2000, "precision@1": 0.45} for name in "ab"})
    assert (halves.queries, halves.smallest) == (4000, pytest.approx(together.smallest))


def test_a_better_system_leaves_smaller_differences():
    """95 of 96 results are right, so p = 97 / 100, and 2 · 0.97 · 0.03 of the results differ."""
    power = Power.of({"all": {"queries": 96, "precision@1": 95 / 96}})
    assert power.smallest == pytest.approx(1.96 * (2 * 0.97 * 0.03 / 96) ** 0.5)
    perfect = Power.of({"all": {"queries": 96, "precision@1": 1.0}})
    assert perfect.smallest > 3 / 96, "three queries do not tell two systems apart"


def test_an_evaluation_without_queries_has_no_power():
    assert Power.of({"all": {"queries": 0, "not measured": 4}}) is None


def test_the_interval_of_the_smallest_difference_touches_zero():
    """1,000 queries, 107 better and 73 worse: c = 0.18 and δ = 0.034. The interval over queries must agree."""
    values = np.array([1.0] * 107 + [-1.0] * 73 + [0.0] * 820)
    left, right = np.maximum(-values, 0), np.maximum(values, 0)
    found = difference({0: CellReading(0, {"all": left})}, {0: CellReading(0, {"all": right})})
    power = Power.measured(found.queries, found.over_queries)
    assert power.queries == 1000
    assert power.smallest == pytest.approx(1.96 * ((0.18 - 0.034**2) / 999) ** 0.5)


@pytest.mark.parametrize(("detect", "needed"), [(0.02, 1921), (0.01, 7684), (0.04, 481)])
def test_how_many_queries_a_difference_needs(detect, needed):
    """1.96² · 0.2 / 0.02² = 1920.8, whatever the number of queries of the measurement."""
    for queries in (100, 4000):
        assert Power(queries, 1.96 * (0.2 / queries) ** 0.5).needed(detect) == needed


def test_as_many_queries_as_needed_are_enough():
    said = Power(1920, 1.96 * (0.2 / 1920) ** 0.5).lacking(0.02)
    assert said.startswith(
        "1,920 queries are too few to detect a difference of 0.02: 1,921 are needed, and twice as many"
    )
    assert "Evaluate on more queries, or set a larger difference (`detect`)" in said
    assert Power(1921, 1.96 * (0.2 / 1921) ** 0.5).lacking(0.02) is None
    assert Power(10, 0.3).lacking(None) is None, "nothing is looked for"


def test_a_warning_names_an_evaluation_that_is_too_small(tmp_path, caplog):
    """Four of four queries are right: p = 6 / 8, so a fifth of the results differ, and 1.96 √(0.2 / 4) = 0.438."""
    measured(tmp_path / "none", SWAPPED, BOTH_WAYS, PAIRS, PAIRS)
    measured(tmp_path / "large", SWAPPED, BOTH_WAYS, PAIRS, PAIRS, detect=0.44)
    assert not caplog.messages
    measured(tmp_path / "small", SWAPPED, BOTH_WAYS, PAIRS, PAIRS, detect=0.1)
    (warning,) = caplog.messages
    assert "small: 4 queries are too few to detect a difference of 0.1: 77 are needed" in warning


def test_an_evaluation_prints_the_smallest_difference_that_it_detects(tmp_path):
    measured(tmp_path / "c", SWAPPED, BOTH_WAYS, PAIRS, PAIRS)
    places = [
        f"{name}={tmp_path / place}"
        for name, place in (("corpus", "c"), ("vectors", "c/v"), ("out", "e"))
    ]
    result = CliRunner().invoke(app, ["evaluate", *places])
    assert (
        "With 4 queries, the smallest detectable difference of mean precision@1 is 0.438 (95 %"
        in result.output
    )
    assert "low … high: the 95 % interval of precision@1." in result.output
    as_json = CliRunner().invoke(app, ["evaluate", *places, "--json"])
    assert (
        as_json.output.strip()
        == EvaluationReport.model_validate_json(as_json.output).model_dump_json()
    )


def test_another_difference_is_the_same_evaluation(tmp_path):
    reports = [
        measured(tmp_path / "c", SWAPPED, BOTH_WAYS, PAIRS, PAIRS, detect=one)[0]
        for one in (None, 0.1)
    ]
    assert reports[0].subsets == reports[1].subsets
