"""Ends an engine's processes when the process that started them has ended, SIGKILL included.

vLLM's engine does not notice that. It would keep the GPU's memory, and the replica that takes the dead one's place
would find none.
"""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence


def guard(pids: Sequence[int]) -> "subprocess.Popen[bytes]":
    """Starts a process that waits until this one ends, and then kills the others that are left.

    Args:
        pids: Of processes that this one has started.
    """
    command = [sys.executable, "-S", "-E", __file__, *map(str, pids)]
    # Nobody writes to its standard input: it ends when this process is gone.
    return subprocess.Popen(  # noqa: S603  our own file
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def main(pids: Sequence[int]) -> None:
    """Waits for the end of standard input."""
    # A number may be given to another process later; a descriptor stays with this one.
    guarded = []
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):  # it has ended already
            guarded.append(os.pidfd_open(pid))
    sys.stdin.read()
    for process in guarded:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(process, signal.SIGKILL)


if __name__ == "__main__":
    main([int(pid) for pid in sys.argv[1:]])
