"""Waiting for replicas: all run, or the service ends with the reason, also where some of them run."""

from types import SimpleNamespace

import pytest
from ray.serve.schema import ApplicationStatus

from judge_service import replica
from unijudge.errors import JudgeError

STARTING, RUNNING = ApplicationStatus.DEPLOYING, ApplicationStatus.RUNNING


def failure(pid):
    """What Ray says of a replica that failed while others run."""
    return (
        "A replica failed to start with exception. Retrying. Error:\n"
        f"ray::ServeReplica:judge:judge (pid={pid}, ip=127.0.0.1)\n"
        "unijudge.errors.ModelError: /models/judge: no such folder"
    )


@pytest.fixture
def reported(monkeypatch):
    """Sets what Ray reports, one status after the other; the last one stays."""
    reports = []

    def status():
        state, message = reports.pop(0) if len(reports) > 1 else reports[0]
        deployments = {"judge": SimpleNamespace(message=message)}
        return SimpleNamespace(applications={"judge": SimpleNamespace(status=state, deployments=deployments)})

    monkeypatch.setattr(replica.serve, "status", status)
    monkeypatch.setattr(replica, "START_POLL_S", 0)
    return reports


def test_all_replicas_run(reported):
    reported += [(STARTING, ""), (STARTING, ""), (RUNNING, "")]
    replica._wait_until_running(start_attempts=1)
    assert len(reported) == 1


def test_one_replica_fails_while_another_runs(reported):
    """Ray would stay in this state for ever."""
    reported += [(STARTING, ""), (STARTING, failure(1))]
    with pytest.raises(JudgeError, match=r"the replicas did not start: ModelError: /models/judge: no such folder"):
        replica._wait_until_running(start_attempts=1)


def test_attempts_are_counted_once(reported):
    reported += [(STARTING, failure(1))] * 5 + [(STARTING, failure(2)), (STARTING, ""), (RUNNING, "")]
    with pytest.raises(JudgeError, match="no such folder"):
        replica._wait_until_running(start_attempts=2)
    reported[:] = [(STARTING, failure(1))] * 5 + [(STARTING, failure(2)), (STARTING, ""), (RUNNING, "")]
    replica._wait_until_running(start_attempts=3)


def test_ray_gives_up(reported):
    reported += [(ApplicationStatus.DEPLOY_FAILED, failure(1))]
    with pytest.raises(JudgeError, match="no such folder"):
        replica._wait_until_running(start_attempts=9)
