"""Effects of a shell or a container on the service's Ray, before it starts."""

import errno
import os
import shutil
import socket
import threading
from pathlib import Path

import pytest
import ray
from ray.exceptions import RayError

from judge_service import cluster, service
from judge_service.backends import preflight
from judge_service.settings import ServiceSettings
from unijudge.errors import JudgeError, SettingsError


@pytest.fixture(autouse=True)
def no_token(monkeypatch, tmp_path):
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def test_a_writable_home_folder_holds_the_token(tmp_path):
    assert cluster._holds_token()
    assert (tmp_path / ".ray").is_dir()


@pytest.mark.parametrize("home", ["read-only", "gone", "unknown"])
def test_a_home_folder_that_cannot_be_written_leaves_the_token_in_the_environment(
    tmp_path, monkeypatch, home
):
    def refuse(*_, **__):
        if home == "unknown":
            raise RuntimeError("Could not determine home directory.")
        raise OSError({"read-only": errno.EROFS, "gone": errno.ENOENT}[home], "no")

    monkeypatch.setattr(Path, "home" if home == "unknown" else "mkdir", refuse)
    assert not cluster._holds_token()
    started = {}
    monkeypatch.setattr(
        cluster,
        "_init",
        lambda **options: started.update(options, token=os.environ["RAY_AUTH_TOKEN"]),
    )
    cluster._start_ray(1)
    assert len(started["token"]) == 64
    monkeypatch.delenv("RAY_AUTH_TOKEN")


def test_a_token_in_the_environment_is_kept(monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "given")
    monkeypatch.setattr(cluster, "_init", lambda **_: None)
    cluster._start_ray(1)
    assert os.environ["RAY_AUTH_TOKEN"] == "given"  # noqa: S105


def test_a_cluster_is_contacted_at_an_ipv6_address_without_brackets(monkeypatch):
    asked = []

    def refuse(address, **_):
        asked.append(address)
        raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(ray, "init", lambda **_: None)
    with pytest.raises(SettingsError, match=r"cannot connect to the Ray cluster at '\[::1\]:6379'"):
        cluster._connect("[::1]:6379")
    assert asked == [("::1", 6379)]


def test_optimised_python_is_named_before_ray_fails(monkeypatch):
    assert not list(preflight.process_faults())
    monkeypatch.setattr(preflight.sys, "flags", type("Flags", (), {"optimize": 2}))
    (fault,) = preflight.process_faults()
    assert fault.startswith("PYTHONOPTIMIZE = 2: ")


@pytest.mark.parametrize(("most", "is_fault"), [(64, True), (255, True), (256, False), (-1, False)])
def test_a_limit_of_open_files_under_which_ray_dies_is_named(monkeypatch, most, is_fault):
    monkeypatch.setattr(preflight.resource, "getrlimit", lambda _: (most, most))
    found = list(preflight.process_faults())
    assert [
        fault.startswith(f"ulimit -n {most}: Ray needs at least 256 open files") for fault in found
    ] == [True] * is_fault


def test_a_request_that_a_dead_ray_never_answers_is_given_up():
    asked = threading.Event()
    begun = []

    def silent():
        begun.append(True)
        asked.wait()

    assert cluster.answer(lambda: 7, lambda: False) == 7
    assert cluster.answer(silent, lambda: bool(begun)) is None
    assert cluster.answer(silent, lambda: True) is None
    assert begun == [True], "nobody asks a Ray that is known to be dead"
    with pytest.raises(KeyError, match="its own"):
        cluster.answer(lambda: {}["its own"], lambda: False)
    asked.set()


def test_a_dead_ray_is_detected_by_the_processes_that_nobody_restarts(monkeypatch):
    assert cluster.dead_parts() == []
    dead = [("raylet", None), ("log_monitor", None)]
    node = type("Node", (), {"dead_processes": lambda _: dead})()
    monkeypatch.setattr(ray._private.worker, "_global_node", node)
    assert cluster.dead_parts() == ["raylet"]


def test_a_dead_ray_ends_a_service_that_would_wait_forever(monkeypatch, tmp_path):
    silent = threading.Event()
    asked = threading.Event()

    def status():
        asked.set()
        silent.wait()

    monkeypatch.setattr(service.serve, "status", status)
    monkeypatch.setattr(service, "dead_parts", lambda: ["raylet"] if asked.is_set() else [])
    one = service._Service(ServiceSettings(), tmp_path / "state.json", threading.Event())
    with pytest.raises(
        JudgeError, match="Ray's raylet on this machine died, and the replicas with it"
    ):
        one._watch()
    silent.set()


@pytest.mark.parametrize(("mib", "is_fault"), [(0, True), (63, True), (64, False)])
def test_a_full_temporary_folder_is_named_before_ray_waits_for_a_file(
    tmp_path, monkeypatch, mib, is_fault
):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setattr(preflight, "LONGEST_TEMPORARY", 1000)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda _: usage._replace(free=mib * 2**20))
    found = [fault.partition(": ")[2] for fault in preflight.temporary_faults()]
    assert [
        fault.startswith(f"has {mib} MiB free, and Ray's logs and sockets need 64")
        for fault in found
    ] == [True] * is_fault


def test_a_file_in_the_working_folder_that_hides_a_package_is_named(monkeypatch, tmp_path):
    """The path of Ray's processes has the folder of the service, so they would import a queue.py from this folder."""

    def refuse(**_):
        raise RayError(
            "ray::ServeController.__init__()\nTraceback:\n  import queue\nImportError: no Queue in queue"
        )

    monkeypatch.setattr(service.serve, "start", refuse)
    for name in ("join", "check_alone"):
        monkeypatch.setattr(service, name, lambda _: None)
    one = service._Service(
        ServiceSettings(address="auto"), tmp_path / "state.json", threading.Event()
    )
    with pytest.raises(
        JudgeError,
        match=r"^Ray Serve did not start: ImportError: no Queue in queue\. .* from another folder",
    ):
        one.run()
