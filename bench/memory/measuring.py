"""Runs commands, and measures the peak memory of each."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from bench.memory.cases import CASES, ROOT, Case, located
from bench.memory.inputs import MEGABYTE


def peak_of(command: list[str]) -> tuple[float, float]:
    """Runs a command. Returns the peak memory of the command or one of its children, in MB, and its seconds.

    Raises:
        RuntimeError: The command failed. The message contains the end of its output.
    """
    begun = time.perf_counter()
    with tempfile.TemporaryFile("w+") as printed:
        process = subprocess.Popen(command, stdout=printed, stderr=printed, cwd=ROOT)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        printed.seek(0)
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)}: {printed.read()[-1000:]}")
    return used.ru_maxrss * 1024 / MEGABYTE, time.perf_counter() - begun


def measured(case: Case, size: int, scratch: Path, url: str) -> list[tuple[float, float]]:
    """Returns the peaks and seconds of a case's commands for one size. The input is deleted afterwards."""
    with tempfile.TemporaryDirectory(dir=scratch) as name:
        made = ["--make", case.name, "--size", str(size), "--scratch", name]
        peak_of([sys.executable, "-m", "bench.memory", *made])
        commands = [case.words, *(words for _, words in case.then)]
        return [
            peak_of([sys.executable, "-m", case.module, *located(words, Path(name), url)])
            for words in commands
        ]


def rows_of(case: Case, scratch: Path, share: float, url: str) -> Iterator[str]:
    """Yields the rows of the table for a case, one row per command."""
    starts = measured(case, case.few, scratch, url)
    sizes = [max(case.few, 1, int(size * share)) for size in case.sizes]
    found = [measured(case, size, scratch, url) for size in sizes]
    names = [case.name, *(name for name, _ in case.then)]
    given = " · ".join(f"{size:,}" for size in sizes)
    for number, name in enumerate(names):
        start, _ = starts[number]
        above = " · ".join(f"{one[number][0] - start:.0f}" for one in found)
        seconds = " · ".join(f"{one[number][1]:.0f}" for one in found)
        yield f"| {name} | {given} {case.grows} | {start:.0f} | {above} | {seconds} |"


def table(names: list[str], scratch: Path, share: float) -> Iterator[str]:
    """Yields the table line by line, during the measurement."""
    yield "| command | sizes | start, MB | above start, MB | seconds |"
    yield "|---|---|---|---|---|"
    for case in CASES:
        if names and not any(name in case.name for name in names):
            continue
        asks = "URL" in " ".join(case.words)
        with judging() if asks else nullcontext("") as url:
            yield from rows_of(case, scratch, share, url)


@contextmanager
def judging() -> Iterator[str]:
    """Yields the URL of the scripted judge. A separate process starts the service, so this process stays small."""
    command = [sys.executable, "-m", "bench.memory", "--serve"]
    process: Any = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    with process:
        yield process.stdout.readline().strip()  # at the end, Popen closes the pipes and waits for the process
