"""The life of a service: signals at any moment, other programs on its port, and replicas that can no longer start."""

import concurrent.futures
import json
import signal
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest

from tests.system.services import UNTRAINED, replica_pids, service

SCRIPTED = "model.backend=scripted"
BODY = b'{"query":{"text":"a"},"candidates":[{"text":"b"}]}'
PATIENCE_S = 120


def send(url, path="/v1/score", body=BODY):
    """Returns (status, headers, body) of one request. The status is 0 if no answer came."""
    try:
        data = body if path.startswith("/v1") else None
        request = urllib.request.Request(f"{url}{path}", data=data)  # noqa: S310
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310  our own URL
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()
    except OSError:
        return 0, {}, b""


def children(process):
    return psutil.Process(process.pid).children(recursive=True)


def folders():
    return set(Path(tempfile.gettempdir()).glob("unijudge-judge-*"))


def nothing_is_left(started, before):
    """Waits until no process and no folder is left. Ray's last processes need a moment."""
    _, alive = psutil.wait_procs(started, timeout=PATIENCE_S)
    assert not alive
    assert folders() <= before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_during_the_start_ends_the_service_and_leaves_no_process(tmp_path, number):
    before = folders()
    with service(tmp_path, SCRIPTED, wait=False) as (process, _, log):
        deadline = time.monotonic() + PATIENCE_S
        while "Started a local Ray instance" not in log.read_text() and time.monotonic() < deadline:
            time.sleep(0.1)
        started = children(process)
        process.send_signal(number)
        process.send_signal(number)
        assert process.wait(PATIENCE_S) == 0, log.read_text()
        assert "Traceback" not in log.read_text()
    assert started
    nothing_is_left(started, before)


def test_running_requests_finish_and_waiting_or_new_ones_are_refused(tmp_path):
    """The service has one slot, so one of four requests runs.

    Meanwhile, another service on the same port is refused.
    """
    before = folders()
    slow = ("front.max_ongoing_requests=1", "model.scripted_delay_s=4")
    with service(tmp_path, SCRIPTED, *slow) as (process, url, log):
        started = children(process)
        port = f"port={url.rpartition(':')[2]}"
        rival = tmp_path / "rival"
        rival.mkdir()
        with service(rival, SCRIPTED, port, wait=False) as (second, _, said):
            assert second.wait(PATIENCE_S) == 1
            assert "another judge service of this machine uses this port" in said.read_text()
        with concurrent.futures.ThreadPoolExecutor(5) as pool:
            four = [pool.submit(send, url) for _ in range(4)]
            time.sleep(2)
            process.send_signal(signal.SIGTERM)
            time.sleep(1)
            late = send(url)
            answers = [one.result() for one in four]
        assert process.wait(PATIENCE_S) == 0, log.read_text()
    assert sorted(status for status, _, _ in answers) == [200, 503, 503, 503], log.read_text()
    for status, headers, body in (*answers, late):
        assert status == 200 or (headers["Retry-After"] and json.loads(body)["code"] == "not_ready")
    nothing_is_left(started, before)


def test_replicas_that_can_no_longer_start_are_reported_and_end_the_service(tmp_path, tiny_model):
    """The model's folder is deleted, and the replica dies.

    Clients get the reason, no client waits forever, and the service ends with the reason.
    """
    model = tmp_path / "model"
    model.symlink_to(tiny_model)
    pixels = (
        "model.min_pixels=3136",
        "model.max_pixels=12544",
        "model.max_tokens=1024",
        "model.backend=transformers",
    )
    with service(tmp_path, f"model.name={model}", *pixels, *UNTRAINED) as (process, url, log):
        assert send(url)[0] == 200, log.read_text()
        model.unlink()
        (victim,) = replica_pids(process)
        psutil.Process(victim).kill()
        seen = set()
        deadline = time.monotonic() + PATIENCE_S
        while process.poll() is None and time.monotonic() < deadline:
            seen |= {send(url)[0], send(url, "/readyz")[0]}
            time.sleep(0.2)
        assert process.wait(PATIENCE_S) == 1, log.read_text()
        (line,) = [line for line in log.read_text().splitlines() if line.startswith("error: ")]
    assert f"the replicas did not start: SettingsError: model.name: {model}: no such folder" in line
    assert 503 in seen
    assert not seen - {0, 200, 503}


def test_a_dead_ray_ends_the_service_with_the_reason_and_leaves_nothing(tmp_path):
    """Ray does not restart its own head, and the service cannot answer without it.

    A supervisor must restart the service.
    """
    before = folders()
    with service(tmp_path, SCRIPTED) as (process, url, log):
        assert send(url)[0] == 200
        started = children(process)
        (victim,) = [child for child in started if Path(child.exe()).name == "raylet"]
        victim.kill()
        assert process.wait(PATIENCE_S) == 1, log.read_text()
        assert (
            "error: Ray's raylet on this machine died, and the replicas with it." in log.read_text()
        )
        assert "Traceback" not in log.read_text()
    nothing_is_left(started, before)
