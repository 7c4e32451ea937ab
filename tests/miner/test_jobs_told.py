"""What a person hears of a cluster's failures: the shard, the reason, and a status that a script can trust."""

import contextlib
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from miner import jobs
from miner.cli import app
from unijudge.errors import DataError, TaskFailed


@pytest.mark.parametrize(("state", "code"), [("SUCCEEDED", 0), ("FAILED", 1), ("STOPPED", 1), ("RUNNING", 1)])
def test_following_a_log_ends_as_the_job_does(monkeypatch, state, code):
    """RUNNING is what is left where the connection broke off."""

    class Client:
        async def tail_job_logs(self, job):
            yield f"{job}: shard 1 of 2\n"

        def get_job_status(self, job):
            return SimpleNamespace(value=state)

    monkeypatch.setattr(jobs, "cluster", lambda address: contextlib.nullcontext(Client()))
    done = CliRunner().invoke(app, ["logs", "job-1", "--follow"])
    assert (done.exit_code, done.stdout) == (code, "job-1: shard 1 of 2\n")
    assert (f"job-1: {state}" in done.stderr) == (code == 1)


def test_a_task_that_dies_again_and_again_is_named_by_its_shard():
    from ray.exceptions import RayTaskError, WorkerCrashedError

    from miner.ray_engine import RETRIES, _fault

    crashed = _fault(7, WorkerCrashedError())
    assert isinstance(crashed, TaskFailed)
    assert str(crashed).startswith(
        f"shard 7: its task failed, and was tried {RETRIES + 1} times where its process died ("
    )
    own = DataError("shard 7: 3 of 4 pairs have no verdict")
    assert _fault(7, RayTaskError("f", "traceback", own)) is own
    foreign = _fault(7, RayTaskError("f", "traceback", ZeroDivisionError("division by zero")))
    assert isinstance(foreign, TaskFailed)
    assert "(division by zero)" in str(foreign)
