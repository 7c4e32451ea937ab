"""Where jobs run: one after another in this process, or side by side as Ray tasks."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any, Literal, Protocol

from trainer.studies.process import CellJob, Ended, run_job
from unijudge.errors import SettingsError
from unijudge.shown import shown
from unijudge.storage.access_errors import in_one_line

Engine = Literal["ray", "local"]


class Runner(Protocol):
    """Takes jobs, and says which has ended."""

    @property
    def places(self) -> int:
        """How many jobs it takes at once."""

    def start(self, job: CellJob) -> None:
        """Begins a job, or keeps it until there is room."""

    def ended(self) -> Ended:
        """Waits for the next job that ends."""


class OneByOne:
    """Runs a job when it is asked which has ended."""

    places = 1

    def __init__(self) -> None:
        self._jobs: list[CellJob] = []

    def start(self, job: CellJob) -> None:
        """Keeps it."""
        self._jobs.append(job)

    def ended(self) -> Ended:
        """Runs the next one."""
        return run_job(self._jobs.pop(0))


class OnRay:
    """Each job is a task that reserves its CPUs and GPUs."""

    def __init__(self, ray: Any):
        self._ray = ray
        self._jobs: dict[Any, CellJob] = {}

    @property
    def places(self) -> int:
        """As many as the cluster has CPUs: each needs one at least, mostly."""
        return max(1, int(self._ray.cluster_resources().get("CPU", 1)))

    def start(self, job: CellJob) -> None:
        """Hands it to the cluster. A task is not tried again: the step's own command may have written already."""
        task = self._ray.remote(num_cpus=job.cpus, num_gpus=job.gpus, max_retries=0)(run_job)
        self._jobs[task.remote(job)] = job

    def ended(self) -> Ended:
        """Waits for the next task; one whose process or machine died has failed."""
        done, _ = self._ray.wait(list(self._jobs), num_returns=1)
        job = self._jobs.pop(done[0])
        try:
            ended: Ended = self._ray.get(done[0])
        except self._ray.exceptions.RayError as error:
            return Ended(job.name, 0.0, f"its task died: {in_one_line(error)}")
        return ended

    def stop(self) -> None:
        """Interrupts the tasks, and waits until their processes have ended."""
        for task in self._jobs:
            self._ray.cancel(task)
        with contextlib.suppress(Exception):  # whatever they raise, they have ended
            self._ray.wait(list(self._jobs), num_returns=len(self._jobs), timeout=130)


@contextlib.contextmanager
def opened(engine: Engine, address: str) -> Iterator[Runner]:
    """An engine, until the block ends; jobs that still run are ended then.

    Args:
        engine: `local` runs one job after another, `ray` as many as the cluster has room for.
        address: Of a Ray cluster; empty: a local one is started for this study.

    Raises:
        SettingsError: Ray is not installed, or no cluster answers at the address.
    """
    if engine == "local":
        yield OneByOne()
        return
    try:
        import ray
    except ImportError as error:
        raise SettingsError(
            "engine=ray: Ray is not installed. Run `pip install 'unijudge[mine-ray]'`, or give --engine local"
        ) from error
    try:
        ray.init(address=address or "local", include_dashboard=None if address else False, log_to_driver=False,
                 num_cpus=None if address else os.cpu_count())  # fmt: skip
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        place = shown(address) if address else "on this machine"
        raise SettingsError(
            f"engine=ray: no Ray cluster {place} ({in_one_line(error)}). See that it runs, or give --engine local"
        ) from error
    runner = OnRay(ray)
    try:
        yield runner
    finally:
        runner.stop()
        ray.shutdown()
