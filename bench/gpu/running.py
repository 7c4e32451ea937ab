"""Runs cases one after another, each in a separate process with a time limit, so a crash affects one case only."""

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench.gpu.lines import one_line
from bench.gpu.options import Options
from bench.gpu.step import Case, Outcome, Step

ROOT = Path(__file__).parents[2]
GRACE_S = 10
"""Time for the processes of a case to stop after the time limit, in seconds."""
Outcomes = dict[str, dict[str, Outcome]]
"""Outcomes by the names of step and case."""


def run_steps(steps: Sequence[Step], options: Options) -> Outcomes:
    """Runs every case of some steps, and prints a line for each case.

    Args:
        steps: The steps, in the order in which they run.
        options: The options of the measurement. The folders must exist.
    """
    outcomes: Outcomes = {}
    for step in steps:
        outcomes[step.name] = {}
        for name, case in step.cases.items():
            print(f"{step.title}: {case.title} … ", end="", flush=True)
            outcome = run_case(step, name, case, options, outcomes)
            outcomes[step.name][name] = outcome
            took = "" if outcome.seconds is None else f" in {outcome.seconds:.0f} s"
            print(
                f"{outcome.state}{took}{': ' if outcome.cause else ''}{outcome.cause}", flush=True
            )
    return outcomes


def run_case(step: Step, name: str, case: Case, options: Options, before: Outcomes) -> Outcome:
    """Runs one case, or skips the case if a required package or model is missing."""
    missing = [package for package in case.packages if importlib.util.find_spec(package) is None]
    if missing:
        return Outcome("skipped", cause=f"not installed: {', '.join(missing)}")
    for model in step.models:
        if before["models"][model].state == "failed":
            return Outcome(
                "skipped", cause=f"the step `models` failed to create the model ({model})"
            )

    options_file = Path(options.scratch) / "options.json"
    options_file.write_text(json.dumps(options.as_json()), encoding="utf-8")
    result = Path(options.scratch) / f"{step.name}-{name}.json"
    log = Path(options.logs) / f"{step.name}-{name}.log"
    command = [
        sys.executable,
        "-m",
        "bench.gpu.case",
        step.name,
        name,
        str(options_file),
        str(result),
    ]
    seconds, status = _watched(command, log, options.limit_s)
    return _outcome(result, log, seconds, status)


def _watched(command: Sequence[str], log: Path, limit_s: float) -> tuple[float, int | None]:
    """Runs a command in a new session, and ends all processes of the session.

    Returns:
        The seconds and the exit status of the command. The status is None if the time limit ended the command.
    """
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    begun = time.monotonic()
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            stdout=out,
            stderr=out,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": path},
            start_new_session=True,
        )
    status = None
    try:
        status = process.wait(limit_s)
    except subprocess.TimeoutExpired:
        # First SIGTERM, so that a service can stop its own processes.
        _signal(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_S)
    finally:
        _signal(process.pid, signal.SIGKILL)
        process.wait()
    return time.monotonic() - begun, status


def _signal(session: int, what: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(session, what)


def _outcome(result: Path, log: Path, seconds: float, status: int | None) -> Outcome:
    """Returns the outcome that the process wrote, or how the process ended if it wrote none."""
    if result.exists():
        written = json.loads(result.read_text(encoding="utf-8"))
        return Outcome(**written | {"seconds": seconds})
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    last = lines[-1] if lines else "no output"
    if status is None:
        return Outcome(
            "failed",
            seconds,
            one_line(f"not done in time. Increase --limit-s. Its last line: {last}"),
        )
    ended = (
        f"was killed by {signal.Signals(-status).name}"
        if status < 0
        else f"ended with status {status}"
    )
    return Outcome("failed", seconds, one_line(f"the process {ended}. Its last line: {last}"))
