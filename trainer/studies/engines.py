"""The engines that run jobs: one after another in this process, or in parallel as Ray tasks."""

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
    """The interface of an engine: starts jobs and reports finished jobs."""

    @property
    def places(self) -> int:
        """The number of jobs that run at the same time."""

    def start(self, job: CellJob) -> None:
        """Starts a job, or queues the job until the engine has room."""

    def ended(self) -> Ended:
        """Waits for the next job that ends."""


class OneByOne:
    """An engine that runs the next job in this process when `ended` is called."""

    places = 1

    def __init__(self) -> None:
        self._jobs: list[CellJob] = []

    def start(self, job: CellJob) -> None:
        """Queues a job."""
        self._jobs.append(job)

    def ended(self) -> Ended:
        """Runs the next job."""
        return run_job(self._jobs.pop(0))


class OnRay:
    """An engine that runs each job as a Ray task. A task reserves the CPUs and GPUs of its job."""

    def __init__(self, ray: Any):
        self._ray = ray
        self._jobs: dict[Any, CellJob] = {}

    @property
    def places(self) -> int:
        """The number of CPUs in the cluster, since nearly every job needs at least one CPU."""
        return max(1, int(self._ray.cluster_resources().get("CPU", 1)))

    def start(self, job: CellJob) -> None:
        """Sends a job to the cluster. Ray does not retry a task, since the step's command may already have written."""
        task = self._ray.remote(num_cpus=job.cpus, num_gpus=job.gpus, max_retries=0)(run_job)
        self._jobs[task.remote(job)] = job

    def ended(self) -> Ended:
        """Waits for the next task. A task has failed if its process or machine died."""
        done, _ = self._ray.wait(list(self._jobs), num_returns=1)
        job = self._jobs.pop(done[0])
        try:
            ended: Ended = self._ray.get(done[0])
        except self._ray.exceptions.RayError as error:
            return Ended(job.name, 0.0, f"the Ray task of this step died: {in_one_line(error)}")
        return ended

    def stop(self) -> None:
        """Interrupts the tasks, and waits until their processes have ended."""
        for task in self._jobs:
            self._ray.cancel(task)
        with contextlib.suppress(Exception):  # a task that raises an error has ended as well
            self._ray.wait(list(self._jobs), num_returns=len(self._jobs), timeout=130)


@contextlib.contextmanager
def opened(engine: Engine, address: str) -> Iterator[Runner]:
    """Opens an engine for the duration of the block. Jobs that still run at the end of the block are stopped.

    Args:
        engine: `local` runs one job after another. `ray` runs as many jobs as the cluster has room for.
        address: The address of a Ray cluster. Empty: a local Ray is started for this study.

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
            "--engine ray: Ray is not installed. Run `pip install 'unijudge[mine-ray]'`, or give --engine local"
        ) from error
    try:
        ray.init(address=address or "local", include_dashboard=None if address else False, log_to_driver=False,
                 num_cpus=None if address else os.cpu_count())  # fmt: skip
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        where = f"at {shown(address)}" if address else "on this machine"
        raise SettingsError(
            f"--engine ray: cannot connect to Ray {where} ({in_one_line(error)}). Check that Ray runs, or give "
            "--engine local"
        ) from error
    runner = OnRay(ray)
    try:
        yield runner
    finally:
        runner.stop()
        ray.shutdown()
