"""Runs a command that ends with the process that started it.

    python tied.py COMMAND WORD …

Linux sends SIGTERM to the command when that process ends, SIGKILL included. Elsewhere the command just runs.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(words: list[str]) -> None:
    """Becomes the command."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    os.execvp(words[0], words)  # noqa: S606  the study's own command, without a shell


if __name__ == "__main__":
    main(sys.argv[1:])
