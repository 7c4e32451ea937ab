"""Charts contain all given values."""

import re

import pytest

from unijudge.pages.charts import FINEST, WIDTH, bars, curves, histogram, ticks


def test_bars_show_a_given_histogram():
    shape = {"low": 0, "high": 1, "x_label": "x"}
    mark = (0.5, "here")
    counted = bars({"a": [3, 0, 0, 1]}, marks=[mark], **shape)
    assert counted == histogram({"a": [0.1, 0.2, 0.0, 0.9]}, bins=4, mark=mark, **shape)
    assert "nan" not in bars({"none": [0, 0]}, marks=[mark], **shape)


def test_the_labels_of_marks_are_on_lines_of_their_own():
    marks = [(0.5, "first"), (0.5, "second"), (0.51, "third")]
    chart = str(bars({"a": [1, 1]}, low=0, high=1, x_label="x", marks=marks))
    heights = [
        float(y) for y in re.findall(r'<text x="[\d.]+" y="([\d.]+)">(?:first|second|third)', chart)
    ]
    assert len(heights) == 3
    assert heights == sorted(set(heights))


def test_a_histogram_has_a_step_for_each_bin_and_includes_outliers():
    chart = str(
        histogram(
            {"a": [0.05] * 3 + [0.95], "b": [-7.0, 9.0]},
            low=0,
            high=1,
            x_label="x",
            mark=(0.5, "here"),
            bins=10,
        )
    )
    first, second = re.findall(r'class="area s\d" d="M([^"]+)Z"', chart)
    heights = [
        [float(y) for _, y in re.findall(r"L([\d.]+) ([\d.]+)", path)] for path in (first, second)
    ]
    bottom, tallest = max(heights[0]), min(heights[0])
    assert len(heights[0]) == 2 * 10 + 1
    assert heights[0][:2] == [tallest, tallest], "three quarters of a stand in the first bin"
    assert heights[0][18] == pytest.approx(bottom - (bottom - tallest) / 3, abs=0.11), (
        "a third as many in the last"
    )
    assert heights[1][0] == heights[1][18] < bottom, "values outside are counted at the ends"
    assert "here" in chart


def test_curves_go_through_their_points():
    chart = str(
        curves(
            {"one <&>": [(0, 0.0), (10, 1.0)], "two": [(5, 0.5)]}, x_label="step", y_label="loss"
        )
    )
    points = [
        [tuple(map(float, p.split(","))) for p in line.split()]
        for line in re.findall(r'points="([^"]+)"', chart)
    ]
    (x0, y0), (x1, y1) = points[0]
    ((x, y),) = points[1]
    assert (x, y) == pytest.approx(((x0 + x1) / 2, (y0 + y1) / 2), abs=0.11)
    assert "one &lt;&amp;&gt;" in chart
    assert "nan" not in str(curves({"flat": [(0, 1.0), (1, 1.0)]}, x_label="x", y_label="y"))


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 0.31), (-3, 250), (1e-4, 2e-4), (5, 5.001)])
def test_ticks_are_few_round_and_inside(low, high):
    found = ticks(low, high)
    assert 3 <= len(found) <= 9
    assert all(low - 1e-9 <= value <= high + 1e-9 for value in found)


def lines(chart, style):
    return [
        [tuple(map(float, point.split(","))) for point in line.split()]
        for line in re.findall(rf'class="{style} s\d" points="([^"]*)"', str(chart))
    ]


def test_a_smoothed_curve_lies_over_a_faint_one_of_all_points():
    zigzag = [(step, float(step % 2)) for step in range(100)]
    chart = curves({"a": zigzag, "none": []}, x_label="x", y_label="y", smooth=True)
    (raw, nothing), (smooth, _) = lines(chart, "line raw"), lines(chart, "line")
    assert nothing == []
    assert len(raw) == len(smooth) == 100
    swing = [max(y for _, y in line) - min(y for _, y in line) for line in (raw, smooth)]
    assert 0 < swing[1] < swing[0] / 5
    assert [x for x, _ in smooth] == [x for x, _ in raw]
    assert lines(curves({"a": zigzag}, x_label="x", y_label="y"), "line") == [raw]


def test_a_long_curve_is_drawn_by_means_of_neighbours():
    (drawn,) = lines(
        curves({"a": [(x, x % 2) for x in range(20_001)]}, x_label="x", y_label="y"), "line"
    )
    assert FINEST / 2 < len(drawn) <= FINEST
    assert max(y for _, y in drawn[:-1]) - min(y for _, y in drawn[:-1]) < 10, (
        "about a half everywhere"
    )


def test_a_legend_that_is_too_long_takes_another_row_and_the_chart_is_taller():
    names = [f"a rather long name of run {number}" for number in range(4)]
    chart = str(curves({name: [(0, 0.0), (1, 1.0)] for name in names}, x_label="x", y_label="y"))
    keys = [
        tuple(map(float, key))
        for key in re.findall(r'class="key s\d" x="([\d.]+)" y="(\d+)"', chart)
    ]
    assert len(set(keys)) == 4
    assert len({y for _, y in keys}) > 1
    assert all(x + 14 + 5 * len(names[0]) < WIDTH for x, _ in keys)
    top = min(y for line in lines(chart, "line") for _, y in line)
    assert top > max(y for _, y in keys) + 10, "no curve runs through the legend"
    height = float(re.search(r'viewBox="0 0 \d+ (\d+)"', chart).group(1))
    assert height > max(y for line in lines(chart, "line") for _, y in line) + 20
