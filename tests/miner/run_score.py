"""Runs scoring jobs in separate processes, which are killed from outside, or which kill themselves at a write.

    python -m tests.miner.run_score SETTINGS                  runs one job
    python -m tests.miner.run_score SETTINGS count            runs one job, and prints the number of its file operations
    python -m tests.miner.run_score SETTINGS kill-at-each N   runs N jobs that die at an operation, and reruns them

All modules are imported once, and each job is a fork that is made before any thread exists.
"""

import json
import os
import signal
import sys
from pathlib import Path

import faiss  # noqa: F401  imported before the forks

from miner.scoring.job import score
from miner.settings import ScoreSettings
from unijudge.storage import files


def before_each_operation(call):
    """Calls `call(number)` before each fsync and each rename of unijudge/storage/files.py.

    A crash can do damage only there.
    """
    sync, replace, number = files._sync, Path.replace, iter(range(10**6))

    def counted(operation):
        def run(*arguments):
            call(next(number))
            return operation(*arguments)

        return run

    files._sync = counted(sync)
    Path.replace = counted(replace)


def forked(run):
    """Runs a function in a child process. Returns the output and the exit status of the child."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        os.write(writer, json.dumps(run()).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        printed = pipe.read()
    _, status = os.waitpid(child, 0)
    return json.loads(printed) if printed else None, status


def requested_pairs(settings):
    return score(settings, lambda progress: None).counts.asked


def count(settings):
    seen = []
    before_each_operation(seen.append)
    requested_pairs(settings)
    return len(seen)


def dying(settings, at):
    before_each_operation(
        lambda number: os.kill(os.getpid(), signal.SIGKILL) if number == at else None
    )
    return requested_pairs(settings)


def main():
    settings = ScoreSettings.model_validate_json(sys.argv[1])
    match sys.argv[2:]:
        case []:
            requested_pairs(settings)
        case ["count"]:
            print(forked(lambda: count(settings))[0])
        case ["kill-at-each", number]:
            for at in range(int(number)):
                here = settings.model_copy(update={"out": settings.out / str(at)})
                _, status = forked(lambda here=here, at=at: dying(here, at))
                left = [str(path.relative_to(here.out)) for path in here.out.rglob("*.parquet")]
                again, end = forked(lambda here=here: requested_pairs(here))
                killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
                print(
                    json.dumps({"killed": killed, "left": left, "asked": again, "end": end}),
                    flush=True,
                )


if __name__ == "__main__":
    main()
