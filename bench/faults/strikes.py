"""The faults, and how each one is caused."""

import contextlib
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import psutil

from bench.faults.scene import PATIENCE_S, Scene, mount

HOUR_S = 3600
QUIET_S = 20
"""Seconds without a death after which no more deaths are expected."""
HEADROOM = 96 * 2**20
"""Bytes that a replica may still allocate when the memory is limited."""


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
    mount(scene.pictures, "-o", "remount,ro")
    time.sleep(6)
    mount(scene.pictures, "-o", "remount,rw")


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
