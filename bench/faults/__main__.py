"""Measures what a scoring job loses when a part fails in the middle of it: python -m bench.faults [--only NAME …].

A real job (`miner.scoring.job`, with shards on disk) runs against a real `judge serve`, and a fault occurs during the
job. A row of the table contains: pairs without a verdict at the end, pairs that are in the shards twice, verdicts that
differ from the judge's, failed requests of the client, and the seconds from the end of the fault until answers are as
fast as before. A refusal with `Retry-After` is not a failed request, because the client retries.

The faults of the image folder mount a small file system, so they need root.
"""

import argparse
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from bench.faults.scene import PATIENCE_S, POISON, Scene, scene_of
from bench.faults.strikes import FAULTS, Fault
from bench.watched_job import Job

QUERIES = 600
WARM_UP_S, MEASURED_S = 4, 4
"""Seconds before a fault, from the first answer on. The rate is measured in the second part."""


def row_of(fault: Fault, scene: Scene, number: int) -> str:
    """Runs a job, causes the fault, and returns the row of the table."""
    scene.notes.clear()
    with tempfile.TemporaryDirectory() as folder:
        poison = POISON.get(fault.kind, "")
        job = Job(
            Path(folder), QUERIES, pictures=fault.kind == "pictures", poison=poison, seed=number
        )
        times: dict[str, float] = {}
        striking = threading.Thread(target=_strike, args=(fault, scene, job, times))
        striking.start()
        ended = job.run(scene.network.url)
        striking.join()
        lost = repeated = wrong = "–"
        if ended == "done":
            pairs = job.pairs(scripted=fault.kind != "memory")
            lost, repeated = str(pairs.lost), str(pairs.repeated)
            if fault.kind != "memory":
                wrong = str(pairs.wrong)
            if poison:
                scene.notes.append(f"harmful candidate: {_counted(pairs.poisoned)}")
    if "end" not in times:
        raise SystemExit(f"{fault.name}: the job ended before the fault. Increase QUERIES")
    rate = job.answered(times["begin"] - MEASURED_S, times["begin"]) / MEASURED_S
    recovered = job.recovered_s(times["end"], rate)
    scene.service.wait_until_ready(PATIENCE_S)
    errors, unanswered = job.failures()
    cells = [
        fault.done, lost, repeated, wrong, _counted(errors), str(unanswered), f"{rate:.0f}",
        "–" if recovered is None else f"{recovered:.1f}", "; ".join([ended, *scene.notes]),
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def _strike(fault: Fault, scene: Scene, job: Job, times: dict[str, float]) -> None:
    """Waits until the job runs at its normal rate, causes the fault, and records its begin and end."""
    while not job.answered(0, time.monotonic()):
        if not job.is_running:
            return
        time.sleep(0.1)
    time.sleep(WARM_UP_S + MEASURED_S)
    if job.is_running:
        times["begin"] = time.monotonic()
        times["end"] = fault.strike(scene) or time.monotonic()


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{number} × {name}" for name, number in sorted(counts.items())) or "0"


def show(faults: Sequence[Fault]) -> None:
    """Prints the table."""
    begun = time.monotonic()
    print(
        "| fault during the job | pairs lost | repeated | wrong | errors | connections lost | answers/s before "
        "| recovery, s | the job |\n|---|---|---|---|---|---|---|---|---|",
        flush=True,
    )
    for kind, alike in groupby(faults, key=lambda fault: fault.kind):
        with scene_of(kind) as scene:
            for number, fault in enumerate(alike):
                print(row_of(fault, scene, number), flush=True)
    print(f"\n{time.monotonic() - begun:.0f} s in total")


def main() -> None:
    """Runs all faults, or some of them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", nargs="+", choices=[fault.name for fault in FAULTS], help="run only these faults"
    )
    given = parser.parse_args()
    show([fault for fault in FAULTS if given.only is None or fault.name in given.only])


if __name__ == "__main__":
    main()
