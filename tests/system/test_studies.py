"""A study whose steps are Ray tasks, started from the command line."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.trainer.studies.made import ROOT, small_study, write_study

LIMIT_S = 120


@pytest.fixture
def study(tmp_path):
    """A study's file, and the folder of its results."""
    return write_study(tmp_path / "study.toml", small_study()), tmp_path / "out"


def start(*words, nap="0"):
    return subprocess.Popen(
        [sys.executable, "-m", "unijudge", "study", *map(str, words)],
        cwd=ROOT,
        env=os.environ | {"NAP": nap},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_steps_run_as_ray_tasks_and_an_interrupted_study_is_resumed(study):
    file, out = study
    first = start("run", file, out, nap="3")
    limit = time.monotonic() + LIMIT_S
    while not list(out.glob("run/*.json")) and time.monotonic() < limit:
        time.sleep(0.2)
    first.send_signal(signal.SIGINT)
    printed, _ = first.communicate(timeout=LIMIT_S)
    done = {line.partition(":")[0] for line in printed.splitlines() if ": finished in" in line}
    assert done, "nothing was done before the interrupt"
    assert first.returncode != 0

    second = start("run", file, out)
    printed, errors = second.communicate(timeout=LIMIT_S)
    assert second.returncode == 1
    assert "run/k=8,way=bad,seed=1: status 1: no luck today" in errors
    again = {line.partition(":")[0] for line in printed.splitlines() if ": finished in" in line}
    assert not done & again
    assert f"{out}: 14 of 15 steps are finished" in printed

    report = start("report", file, out)
    printed, _ = report.communicate(timeout=LIMIT_S)
    assert report.returncode == 0
    assert "The good way, against the bad one (k 4) helped: score +1.000" in printed
