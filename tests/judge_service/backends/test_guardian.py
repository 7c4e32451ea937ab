"""The processes of an engine end when their parent process ends."""

import os
import select
import signal
import subprocess
import sys

import pytest

STARTS_AN_ENGINE = """
import subprocess, sys
from judge_service.backends.guardian import guard
engine = subprocess.Popen(["sleep", "600"])
guardian = guard([engine.pid])
print(engine.pid, flush=True)
sys.stdin.read()
"""


def ended(descriptor, timeout_s=30):
    """Whether the process of a descriptor has ended before a time limit."""
    return bool(select.select([descriptor], [], [], timeout_s)[0])


@pytest.mark.parametrize("end", ["SIGKILL", "exit"])
def test_an_engine_ends_with_its_parent_process(end):
    command = [sys.executable, "-c", STARTS_AN_ENGINE]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as starter:
        engine = os.pidfd_open(int(starter.stdout.readline()))
        assert not ended(engine, 0.5)
        if end == "SIGKILL":
            starter.kill()
        else:
            starter.stdin.close()
        starter.wait(30)
    try:
        assert ended(engine)
    finally:
        if not ended(engine, 0):
            signal.pidfd_send_signal(engine, signal.SIGKILL)
        os.close(engine)
