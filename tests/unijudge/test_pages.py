"""Pages: charts that hold what they were given, text that stays text, nothing from elsewhere."""

import base64
import hashlib
import re

import jinja2
import pytest

from tests.pictures import png
from unijudge.pages import Script, bars, curves, data, histogram, page, picture, ticks


def made(tmp_path, body, **values):
    template = tmp_path / "t.html.jinja"
    template.write_text(
        '{% extends "page.html.jinja" %}{% set title = "T" %}{% block body %}' + body + "{% endblock %}"
    )
    return page(template, **values)


def test_a_page_stands_alone_and_escapes(tmp_path):
    html = made(tmp_path, "{{ said }}{{ image }}", said="<script>x</script>", image=picture(png(), alt='a "b"'))
    assert "&lt;script&gt;" in html
    assert "<script" not in html
    assert 'alt="a &#34;b&#34;"' in html
    assert "prefers-color-scheme: dark" in html
    assert not re.search(r'(?:src|href)="(?!data:)', html), "nothing is fetched"


def test_a_page_carries_its_own_script_and_data(tmp_path):
    script = Script("const said = 1 < 2 && '&';")
    html = made(tmp_path, "{{ script.element }}{{ rows }}", script=script, rows=data("rows", {"a": "</script><b>&"}))
    assert "<script>const said = 1 < 2 && '&';</script>" in html
    assert '{"a":"\\u003c/script>\\u003cb>&"}' in html
    assert html.count("</script>") == 2
    digest = base64.b64encode(hashlib.sha256(script.source.encode()).digest()).decode()
    assert script.policy.endswith(f"script-src 'sha256-{digest}'")
    with pytest.raises(ValueError, match="not JSON compliant"):
        data("rows", [float("nan")])


def test_bars_are_a_histogram_that_was_counted_elsewhere():
    shape = {"low": 0, "high": 1, "x_label": "x", "mark": (0.5, "here")}
    assert bars({"a": [3, 0, 0, 1]}, **shape) == histogram({"a": [0.1, 0.2, 0.0, 0.9]}, bins=4, **shape)
    assert "nan" not in bars({"none": [0, 0]}, **shape)


def test_a_name_that_was_not_given_is_an_error(tmp_path):
    with pytest.raises(jinja2.UndefinedError, match="'numbers' is undefined"):
        made(tmp_path, "{{ numbers }}")


def test_a_histogram_has_a_step_for_each_bin_and_holds_what_lies_outside():
    chart = str(
        histogram({"a": [0.05] * 3 + [0.95], "b": [-7.0, 9.0]}, low=0, high=1, x_label="x", mark=(0.5, "here"), bins=10)
    )
    first, second = re.findall(r'class="area s\d" d="M([^"]+)Z"', chart)
    heights = [[float(y) for _, y in re.findall(r"L([\d.]+) ([\d.]+)", path)] for path in (first, second)]
    bottom, tallest = max(heights[0]), min(heights[0])
    assert len(heights[0]) == 2 * 10 + 1
    assert heights[0][:2] == [tallest, tallest], "three quarters of a stand in the first bin"
    assert heights[0][18] == pytest.approx(bottom - (bottom - tallest) / 3, abs=0.11), "a third as many in the last"
    assert heights[1][0] == heights[1][18] < bottom, "values outside are counted at the ends"
    assert "here" in chart


def test_curves_go_through_their_points():
    chart = str(curves({"one <&>": [(0, 0.0), (10, 1.0)], "two": [(5, 0.5)]}, x_label="step", y_label="loss"))
    points = [
        [tuple(map(float, p.split(","))) for p in line.split()] for line in re.findall(r'points="([^"]+)"', chart)
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
