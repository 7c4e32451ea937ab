"""Ends an engine's processes when their parent process has ended, even by SIGKILL.

vLLM's engine does not notice the end of its parent. The engine would keep the GPU's memory, and the next replica would
not have enough memory to start.
"""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence


def guard(pids: Sequence[int]) -> "subprocess.Popen[bytes]":
    """Starts a guardian: a process that waits for the end of this process, and then kills the given processes.

    Args:
        pids: The ids of processes that this process has started.
    """
    command = [sys.executable, "-S", "-E", __file__, *map(str, pids)]
    # Nothing is written to the guardian's standard input, so the input ends only when this process ends.
    return subprocess.Popen(  # noqa: S603  our own file
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def main(pids: Sequence[int]) -> None:
    """Waits for the end of standard input, and then kills the processes."""
    # The system can reuse the id of an ended process, but a file descriptor always means the same process.
    guarded = []
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):  # the process has already ended
            guarded.append(os.pidfd_open(pid))
    sys.stdin.read()
    for process in guarded:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(process, signal.SIGKILL)


if __name__ == "__main__":
    main([int(pid) for pid in sys.argv[1:]])
