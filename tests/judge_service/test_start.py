"""The state of the service, from Ray's report about its replicas: ready, partly ready, or broken, and the reason."""

import threading
import time
from types import SimpleNamespace

import pytest
from ray.serve.schema import ApplicationStatus

from judge_service.front.state import ServiceState, StateFile
from judge_service.replica_history import Replicas
from judge_service.service import _Clock, _Service
from judge_service.settings import ServiceSettings
from unijudge.errors import JudgeError

STARTING, RUNNING, FAILED = (
    ApplicationStatus.DEPLOYING,
    ApplicationStatus.RUNNING,
    ApplicationStatus.DEPLOY_FAILED,
)


def failure(pid):
    """Ray's report about a replica that failed while other replicas run."""
    return (
        "A replica failed to start with exception. Retrying. Error:\n"
        f"ray::ServeReplica:judge:judge (pid={pid}, ip=127.0.0.1)\n"
        "unijudge.errors.ModelError: /models/judge: no such folder"
    )


def report_text(status, running, message=""):
    """The text of Ray's report."""
    deployment = SimpleNamespace(
        message=message, replica_states={"RUNNING": running, "STARTING": 2 - running}
    )
    return SimpleNamespace(status=status, deployments={"judge": deployment})


def states(replicas, *reports):
    return [(state.phase, state.ready) for state in map(replicas.state, reports)]


def test_ready_means_that_every_replica_runs():
    replicas = Replicas(2, start_attempts=1)
    assert states(replicas, report_text(STARTING, 0), report_text(STARTING, 1), report_text(RUNNING, 2)) == [
        ("starting", False), ("starting", False), ("serving", True),
    ]  # fmt: skip


def test_the_other_replica_serves_while_one_is_replaced():
    replicas = Replicas(2, start_attempts=2)
    found = states(
        replicas,
        report_text(RUNNING, 2),
        report_text(STARTING, 1),
        report_text(STARTING, 0),
        report_text(RUNNING, 2),
    )
    assert found == [("serving", True), ("serving", False), ("starting", False), ("serving", True)]
    assert replicas.state(report_text(STARTING, 1)).reason == "1 of 2 replicas run"


def test_one_replica_fails_at_the_first_start_while_another_runs():
    """Without our check, Ray would stay in this state forever."""
    with pytest.raises(
        JudgeError, match=r"the replicas did not start: ModelError: /models/judge: no such folder"
    ):
        Replicas(2, start_attempts=1).state(report_text(STARTING, 1, failure(1)))


def test_attempts_are_counted_once():
    replicas = Replicas(2, start_attempts=2)
    for _ in range(5):
        broken = replicas.state(report_text(STARTING, 0, failure(1)))
    assert (broken.phase, broken.reason) == (
        "broken", "0 of 2 replicas run: ModelError: /models/judge: no such folder",
    )  # fmt: skip
    with pytest.raises(JudgeError, match="no such folder"):
        replicas.state(report_text(STARTING, 0, failure(2)))


def test_later_failures_end_the_service_only_if_no_replica_is_left(caplog):
    replicas = Replicas(2, start_attempts=2)
    replicas.state(report_text(RUNNING, 2))
    for pid in range(5):
        assert replicas.state(report_text(STARTING, 1, failure(pid))).phase == "serving"
    assert len(caplog.messages) == 5
    replicas.state(report_text(RUNNING, 2))
    assert replicas.state(report_text(STARTING, 0, failure(7))).phase == "broken"
    with pytest.raises(JudgeError, match="no such folder"):
        replicas.state(report_text(STARTING, 0, failure(8)))


def test_a_start_that_ray_gives_up_is_reported():
    with pytest.raises(JudgeError, match="no such folder"):
        Replicas(2, start_attempts=9).state(report_text(FAILED, 0, failure(1)))


def test_a_state_that_cannot_be_written_is_retried_and_the_service_continues(tmp_path, caplog):
    """A file with the name of the folder has the same effect as a full disk."""
    folder = tmp_path / "service"
    folder.write_text("")
    service = _Service(ServiceSettings(), folder / "state.json", threading.Event())
    for _ in range(3):
        service._publish(ServiceState(phase="serving", ready=True))
    (warning,) = caplog.messages
    assert warning.startswith("health probes still get the previous state: ")
    folder.unlink()
    folder.mkdir()
    service._publish(ServiceState(phase="serving", ready=True))
    assert StateFile(folder / "state.json").read().ready


def test_a_wall_clock_that_is_set_back_is_reported_once(monkeypatch):
    real = time.time
    clock = _Clock()
    seen = [clock.fell()]
    for jump in (3600, 0, 0, -3600, -3600):
        monkeypatch.setattr(time, "time", lambda jump=jump: real() + jump)
        seen.append(clock.fell())
    assert seen == [False, False, True, False, True, False]


@pytest.mark.parametrize(
    ("host", "shown"),
    [("::1", "[::1]"), ("judge", "judge"), ("0.0.0.0", "0.0.0.0")],  # noqa: S104
)
def test_an_ipv6_address_is_shown_as_in_a_url(host, shown):
    assert ServiceSettings(host=host, port=8000).url == f"http://{shown}:8000"
