"""Runs a command that ends when its parent process ends.

    python tied.py COMMAND WORD …

Linux sends SIGTERM to the command when the parent process ends, even after SIGKILL. On other systems the command runs
normally.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(words: list[str]) -> None:
    """Replaces this process by the command."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    os.execvp(words[0], words)  # noqa: S606  the study's own command, without a shell


if __name__ == "__main__":
    main(sys.argv[1:])
