"""Messages about a cluster's failures: they name the shard and the reason, and the exit status is right."""

import asyncio
import contextlib
import threading
from types import SimpleNamespace

import aiohttp
import pytest
from ray.exceptions import RaySystemError, RayTaskError, WorkerCrashedError
from ray.job_submission import JobStatus
from typer.testing import CliRunner

from miner.cli import app
from miner.scoring import ray_jobs
from miner.scoring.shard_scorer import ShardInputs
from unijudge.errors import DataError, TaskFailed


@pytest.mark.parametrize(
    ("states", "code"), [("SUCCEEDED", 0), ("FAILED", 1), ("STOPPED", 1), ("RUNNING FAILED", 1)]
)
def test_following_a_log_ends_as_the_job_does(monkeypatch, states, code):
    """If the log stream breaks while the job runs, the new lines are still printed."""
    lines, left = ["job-1: shard 1 of 2\n", "job-1: shard 2 of 2\n"], states.split()

    class Client:
        async def tail_job_logs(self, job):
            yield lines[0]
            if left[0] == "RUNNING":
                raise aiohttp.ClientConnectionError
            yield lines[1]

        def get_job_status(self, job):
            return JobStatus(left.pop(0))

    monkeypatch.setattr(ray_jobs, "LOOK_EVERY_S", 0)
    monkeypatch.setattr(ray_jobs, "cluster", lambda address: contextlib.nullcontext(Client()))
    done = CliRunner().invoke(app, ["logs", "job-1", "--follow"])
    assert (done.exit_code, done.stdout) == (code, "".join(lines))
    assert (f"job-1: {states.split()[-1]}" in done.stderr) == (code == 1)


def test_a_task_that_dies_again_and_again_is_named_by_its_shard():
    from miner.scoring.ray_executor import RETRIES, _fault

    crashed = _fault(7, WorkerCrashedError())
    assert isinstance(crashed, TaskFailed)
    assert str(crashed).startswith("shard 7: its task failed (")
    assert f"A task whose process dies is tried {RETRIES + 1} times" in str(crashed)
    own = DataError("shard 7: 3 of 4 pairs have no verdict")
    assert _fault(7, RayTaskError("f", "traceback", own)) is own
    foreign = _fault(7, RayTaskError("f", "traceback", ZeroDivisionError("division by zero")))
    assert isinstance(foreign, TaskFailed)
    assert "(division by zero)" in str(foreign)


class FakeRay:
    """A cluster whose tasks end at once, with the listed error of their shard, or with counts."""

    def __init__(self, ends):
        self.ends, self.asked = ends, []

    def start(self, settings, plan, shard):
        self.asked.append(shard)
        return shard

    def wait(self, working, timeout):
        return working[:1], working[1:]

    def get(self, shard):
        if shard in self.ends:
            raise self.ends[shard]
        return shard


def run_on(monkeypatch, ends, shards, tasks=2):
    from miner.scoring import ray_executor

    fake, told = FakeRay(ends), []
    fake.remote = lambda **options: lambda work: SimpleNamespace(remote=fake.start)
    monkeypatch.setattr(ray_executor, "ray", fake)
    settings = SimpleNamespace(
        ray_concurrency=tasks, absolute=lambda: settings, model_dump_json=lambda context: "{}"
    )
    plan = SimpleNamespace(model_dump_json=lambda: "{}")
    executor, inputs = ray_executor.RayExecutor(settings), ShardInputs(plan, None, None, None)
    with pytest.raises(Exception) as found:  # noqa: PT011  which one is what the tests say
        asyncio.run(executor.run(inputs, shards, told.append, threading.Event()))
    return found.value, told, fake.asked


def test_a_shard_that_kills_its_tasks_does_not_stop_the_others(monkeypatch):
    ends = {1: WorkerCrashedError(), 4: WorkerCrashedError()}
    error, told, asked = run_on(monkeypatch, ends, range(8))
    assert isinstance(error, TaskFailed)
    assert str(error).startswith("shard 1: its task failed (")
    assert str(error).endswith("to score the missing shards. Further failed shards (1): 4")
    assert told == [0, 2, 3, 5, 6, 7]
    assert asked == list(range(8))


def test_the_job_ends_if_every_task_dies(monkeypatch):
    error, told, asked = run_on(
        monkeypatch, {shard: WorkerCrashedError() for shard in range(100)}, range(100)
    )
    assert isinstance(error, TaskFailed)
    assert (told, len(asked)) == ([], 7), "more than five died, and one was running"


def test_after_an_error_the_running_shards_finish(monkeypatch):
    own = DataError("shard 0: 3 of 4 pairs have no verdict")
    error, told, asked = run_on(monkeypatch, {0: RayTaskError("f", "traceback", own)}, range(8))
    assert (error, told, asked) == (own, [1], [0, 1])


def test_a_lost_cluster_is_reported_in_one_line(monkeypatch):
    from miner.scoring import ray_executor

    monkeypatch.setattr(
        FakeRay,
        "wait",
        lambda *_, **__: (_ for _ in ()).throw(RaySystemError("the raylet is gone")),
    )
    error, told, _ = run_on(monkeypatch, {}, range(8))
    assert isinstance(error, TaskFailed)
    assert "\n" not in str(error)
    assert str(error).startswith('engine = "ray": the cluster was lost (')
    assert told == []
    assert ray_executor.RETRIES == 2


def test_a_long_wait_is_reported(monkeypatch, caplog):
    """The first report comes after a minute in which no task ended, and another report after the next such minute."""
    from miner.scoring import ray_executor

    monkeypatch.setattr(ray_executor, "TELL_EVERY_S", 0)
    rounds = iter(range(3))
    ended = FakeRay.wait
    monkeypatch.setattr(
        FakeRay,
        "wait",
        lambda self, working, timeout: (
            ([], working) if next(rounds, None) is not None else ended(self, working, timeout)
        ),
    )
    monkeypatch.setattr(FakeRay, "available_resources", lambda self: {"CPU": 0.0}, raising=False)
    monkeypatch.setattr(FakeRay, "cluster_resources", lambda self: {"CPU": 4.0}, raising=False)
    with caplog.at_level("INFO"):
        run_on(monkeypatch, {0: WorkerCrashedError()}, range(1))
    assert (
        caplog.text.count(
            "no shard was finished for 0 s: 1 are running or waiting, and 0 of the cluster's 4 CPUs are free"
        )
        == 3
    )
