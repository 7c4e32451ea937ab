"""bench/memory/: every case runs at its smallest size, leaves no files, and measures the peak of its own process."""

import sys

import pytest

from bench.memory.cases import CASES
from bench.memory.measuring import measured, peak_of, table
from judge_service.backends.scripted import ScriptedJudge
from tests.miner.conftest import serving
from unijudge.judging.prompt import Prompt


def test_the_peak_memory_belongs_to_the_command():
    """A child process writes 700 MB."""
    peak, seconds = peak_of([sys.executable, "-c", "held = b'1' * 700_000_000"])
    assert peak > 700
    assert seconds > 0


def test_a_failed_command_is_reported():
    with pytest.raises(RuntimeError, match="no such thing"):
        peak_of([sys.executable, "-c", "raise SystemExit('no such thing')"])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_case_runs_and_leaves_nothing(case, tmp_path):
    with serving(ScriptedJudge(Prompt())) as url:
        found = measured(case, case.few, tmp_path, url)
    assert len(found) == 1 + len(case.then)
    assert all(peak > 10 for peak, _ in found)
    assert not list(tmp_path.iterdir())


def test_a_row_of_the_table_has_a_figure_for_each_size(tmp_path):
    """Each size is some thousandths of the full size."""
    (row,) = list(table(["JSON"], tmp_path, 0.004))[2:]
    name, sizes, start, above, seconds = (cell.strip() for cell in row.strip("|").split("|"))
    assert (name, sizes) == ("import of a JSON array", "1 · 2 · 4 · 8 MB")
    assert float(start) > 10
    assert len(above.split(" · ")) == len(seconds.split(" · ")) == 4
