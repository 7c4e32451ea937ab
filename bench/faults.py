"""Measures what a scoring job loses when a part fails in the middle of it: python -m bench.faults [--only NAME …].

A real job (`miner.scoring.job`, with shards on disk) runs against a real `judge serve`, and a fault occurs during the
job. A row of the table contains: pairs without a verdict at the end, pairs that are in the shards twice, verdicts that
differ from the judge's, failed requests of the client, and the seconds from the end of the fault until answers are as
fast as before. A refusal with `Retry-After` is not a failed request, because the client retries.

The faults of the image folder mount a small file system, so they need root.
"""

import argparse
import contextlib
import random
import signal
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from types import MappingProxyType

import psutil

from bench.bad_network import BadNetwork
from bench.made_up import Service, running, sentence
from bench.watched_job import Job
from demo.tiny_model import make_model

SCRIPTED = MappingProxyType(
    {
        "model.backend": "scripted",
        "model.scripted_delay_s": 0.25,
        "replicas": 2,
        "health.timeout_s": 2,
        "health.liveness_window_s": 1,
    }
)
"""Settings of a service with two replicas of four slots, which answers 32 requests per second."""
QUERIES = 600
WARM_UP_S, MEASURED_S = 4, 4
"""Seconds before a fault, from the first answer on. The rate is measured in the second part."""
PATIENCE_S = 180
"""Longest time until the service is ready again after a fault, in seconds."""
HOUR_S = 3600
LONG = sentence(random.Random(1), 2600)  # noqa: S311  reproducible, not secret
"""A text of 8,000 tokens, far more than the other items have."""
LETHAL = "lethal"
QUIET_S = 20
"""Seconds without a death after which no more deaths are expected."""
HEADROOM = 96 * 2**20
"""Bytes that a replica may still allocate when the memory is limited."""


@dataclass
class Scene:
    """Everything that a fault can change."""

    service: Service
    network: BadNetwork
    pictures: Path
    """The mount point where the service stores its images."""
    clock: Path
    """The file with the error of the service's wall clock, in seconds."""
    deaths: Path
    """The file with one line for each death by a pair: the text of the query."""
    notes: list[str] = field(default_factory=list)

    def processes(self, title: str) -> list[psutil.Process]:
        """Returns the service's processes whose title contains these words, oldest first."""
        found = []
        for child in psutil.Process(self.service.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if title in " ".join(child.cmdline()):
                    found.append(child)
        return sorted(found, key=lambda process: process.create_time())

    def start_again(self) -> None:
        """Restarts the service until it keeps running, as a supervisor does."""
        for attempt in range(1, 11):
            self.service.start()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.service.process.wait(8)
                self.notes.append(f"start {attempt} failed: {self.service.printed()[-1]}")
                continue
            return


def kill_one(scene: Scene) -> None:
    """Kills one replica (SIGKILL)."""
    scene.processes("ServeReplica")[0].kill()


def kill_both(scene: Scene) -> None:
    """Kills both replicas (SIGKILL)."""
    for replica in scene.processes("ServeReplica"):
        replica.kill()


def kill_front(scene: Scene) -> None:
    """Kills Ray Serve's proxy (SIGKILL)."""
    for proxy in scene.processes("ProxyActor"):
        proxy.kill()


def kill_controller(scene: Scene) -> None:
    """Kills Ray Serve's controller (SIGKILL)."""
    for controller in scene.processes("ServeController"):
        controller.kill()


def hang_one(scene: Scene) -> None:
    """Stops one replica (SIGSTOP). The process exists until the service finds that it hangs."""
    scene.processes("ServeReplica")[0].suspend()


def kill_service(scene: Scene) -> None:
    """Kills `judge serve` (SIGKILL), and restarts the service after one second."""
    scene.service.process.kill()
    scene.service.process.wait()
    time.sleep(1)
    scene.start_again()


def end_service(scene: Scene) -> None:
    """Sends SIGTERM to `judge serve`, and restarts the service after its end."""
    scene.service.process.send_signal(signal.SIGTERM)
    status = scene.service.process.wait(PATIENCE_S)
    if status:
        scene.notes.append(f"ended with status {status}")
    scene.start_again()


def limit_memory(scene: Scene) -> None:
    """Limits the memory of all replicas to a little more than their current memory, permanently."""
    for replica in scene.processes("ServeReplica"):
        most = replica.memory_info().vms + HEADROOM
        replica.rlimit(psutil.RLIMIT_AS, (most, most))


def fill_pictures(scene: Scene) -> None:
    """Fills the disk of the images for six seconds."""
    filler = scene.pictures / "filler"
    with contextlib.suppress(OSError), filler.open("wb") as file:
        while True:
            file.write(bytes(4096))
    time.sleep(6)
    filler.unlink()


def lock_pictures(scene: Scene) -> None:
    """Makes the disk of the images read-only for six seconds."""
    _mount(scene.pictures, "-o", "remount,ro")
    time.sleep(6)
    _mount(scene.pictures, "-o", "remount,rw")


def cut_network(scene: Scene) -> None:
    """Stops all traffic for 30 seconds."""
    scene.network.cut()
    time.sleep(30)
    scene.network.mend()


def slow_network(scene: Scene) -> None:
    """Limits all connections together to 1 kB/s for 20 seconds."""
    scene.network.slow_down(1000)
    time.sleep(20)
    scene.network.mend()


def lossy_network(scene: Scene) -> None:
    """For ten seconds, resets a connection at one of twenty pieces of data."""
    scene.network.lose(0.05)
    time.sleep(10)
    scene.notes.append(f"{scene.network.resets} connections reset")
    scene.network.mend()


def jump(scene: Scene) -> None:
    """Sets the clock of miner, service and Ray one hour forward, four seconds later back, and then kills a replica."""
    real = time.time
    scene.clock.write_text(str(HOUR_S))
    time.time = lambda: real() + HOUR_S
    time.sleep(4)
    time.time = real
    scene.clock.unlink()
    time.sleep(2)
    kill_one(scene)


def wait_for_deaths(scene: Scene) -> float:
    """Waits, because one item of the job kills each replica that judges it. Returns the time of the last death."""
    while not scene.deaths.exists() or time.time() - scene.deaths.stat().st_mtime < QUIET_S:
        time.sleep(0.1)
    pairs = Counter(scene.deaths.read_text().splitlines())
    scene.notes.append(
        f"{pairs.total()} deaths by {len(pairs)} pairs, at most {max(pairs.values())} by one"
    )
    return time.monotonic() - (time.time() - scene.deaths.stat().st_mtime)


@dataclass(frozen=True)
class Fault:
    """One fault, which is one row of the table."""

    name: str
    done: str
    """The fault in words, for the table."""
    strike: Callable[[Scene], float | None]
    """Causes the fault and waits until it is over. May return the time of its end, on the clock of `time.monotonic`."""
    kind: str = "scripted"
    """The kind of service: `scripted`, `clock`, `pictures`, `memory` or `deadly`."""


FAULTS = [
    Fault("nothing", "no fault", lambda _: None),
    Fault("one-replica", "one of two replicas killed", kill_one),
    Fault("both-replicas", "both replicas killed", kill_both),
    Fault("front", "Ray's proxy killed", kill_front),
    Fault("controller", "Ray Serve's controller killed", kill_controller),
    Fault("network-cut", "network cut for 30 s", cut_network),
    Fault("network-slow", "1 kB/s for all connections together, for 20 s", slow_network),
    Fault("network-lossy", "5 % of the sends reset their connection, for 10 s", lossy_network),
    Fault("hang", "one of two replicas stopped (SIGSTOP)", hang_one),
    Fault("service-killed", "`judge serve` killed, restarted after 1 s", kill_service),
    Fault("service-ended", "SIGTERM to `judge serve`, restarted after its end", end_service),
    Fault(
        "clock",
        "wall clock set an hour forward, after 4 s back; then one replica killed",
        jump,
        "clock",
    ),
    Fault("pictures-full", "disk of the images full for 6 s", fill_pictures, "pictures"),
    Fault("pictures-read-only", "disk of the images read-only for 6 s", lock_pictures, "pictures"),
    Fault(
        "memory", "a candidate of 8,000 tokens, not enough memory for it", limit_memory, "memory"
    ),
    Fault("deadly", "a candidate that kills its replica each time", wait_for_deaths, "deadly"),
]
POISON = {"memory": LONG, "deadly": LETHAL}
"""The end of the harmful item's text, by kind of service."""


@contextlib.contextmanager
def scene_of(kind: str) -> Iterator[Scene]:
    """Starts a service of a kind, and a network in front of it."""
    settings: dict[str, object] = dict(SCRIPTED)
    environment: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as mounts:
        folder = Path(name)
        pictures, clock, deaths = folder / "pictures", folder / "clock", folder / "deaths"
        if kind == "clock":
            environment = {
                "PYTHONPATH": str(Path(__file__).parent / "clock"),
                "UNIJUDGE_BENCH_CLOCK": str(clock),
            }
        elif kind == "deadly":
            environment = {
                "PYTHONPATH": str(Path(__file__).parent / "deadly"),
                "UNIJUDGE_BENCH_LETHAL": LETHAL,
            }
            environment |= {"UNIJUDGE_BENCH_DEATHS": str(deaths)}
        elif kind == "pictures":
            mounts.enter_context(_small_disk(pictures))
            settings["blobs.folder"] = pictures
        elif kind == "memory":
            make_model(folder / "model")
            settings = {
                "model.name": folder / "model",
                "model.backend": "transformers",
                "health.min_label_mass": 0,
            }
            settings |= {"health.canary_every_s": 0, "model.batch_tokens": 2**16, "replicas": 2}
        with (
            running(Service(settings, environment)) as service,
            BadNetwork(service.port) as network,
        ):
            yield Scene(service, network, pictures, clock, deaths)


@contextlib.contextmanager
def _small_disk(folder: Path) -> Iterator[None]:
    folder.mkdir()
    _mount(folder, "-t", "tmpfs", "-o", "size=64m", "tmpfs")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)  # noqa: S607  found in PATH


def _mount(folder: Path, *options: str) -> None:
    subprocess.run(["mount", *options, folder], check=True)  # noqa: S607


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
