"""Changes the wall clock of Python. Python imports this module at start if its folder is in PYTHONPATH.

The file `UNIJUDGE_BENCH_CLOCK` contains the difference in seconds. If the file is missing, the clock is correct.
"""

import os
import time

_FILE = os.environ["UNIJUDGE_BENCH_CLOCK"]
_time, _time_ns = time.time, time.time_ns


def _jump_s() -> float:
    try:
        with open(_FILE) as file:  # noqa: PTH123  called very often
            return float(file.read())
    except (OSError, ValueError):
        return 0.0


time.time = lambda: _time() + _jump_s()
time.time_ns = lambda: _time_ns() + int(1e9 * _jump_s())
