"""The service and the network of a measurement: everything that a fault can change."""

import contextlib
import random
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import psutil

from bench.bad_network import BadNetwork
from bench.made_up import Service, running, sentence
from demo.tiny_model import make_model

BENCH = Path(__file__).parents[1]
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
PATIENCE_S = 180
"""Longest time until the service is ready again after a fault, in seconds."""
LONG = sentence(random.Random(1), 2600)  # noqa: S311  reproducible, not secret
"""A text of 8,000 tokens, far more than the other items have."""
LETHAL = "lethal"
POISON = {"memory": LONG, "deadly": LETHAL}
"""The end of the harmful item's text, by kind of service."""


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
                "PYTHONPATH": str(BENCH / "clock"),
                "UNIJUDGE_BENCH_CLOCK": str(clock),
            }
        elif kind == "deadly":
            environment = {
                "PYTHONPATH": str(BENCH / "deadly"),
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
    mount(folder, "-t", "tmpfs", "-o", "size=64m", "tmpfs")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)  # noqa: S607  found in PATH


def mount(folder: Path, *options: str) -> None:
    """Mounts a file system, or changes its options."""
    subprocess.run(["mount", *options, folder], check=True)  # noqa: S607
