"""The process of a service: it reserves a port, removes its folder after a kill, and handles signals."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from judge_service.process import port_lock, service_folder, stopping_at_signals, with_port
from judge_service.settings import ServiceSettings
from unijudge.errors import SettingsError

HOLD = """
import time
from judge_service.process import service_folder
with service_folder() as folder:
    print(folder, flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def own_temporary_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_a_port_has_one_service():
    settings = ServiceSettings(port=8000)
    with port_lock(settings):
        with (
            pytest.raises(SettingsError, match="port: 8000: another judge service of this machine"),
            port_lock(settings),
        ):
            pass
        with port_lock(ServiceSettings(port=8001)):
            pass
    with port_lock(settings):
        pass


def test_a_folder_is_removed_with_its_process_and_after_a_kill(tmp_path):
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True, env=environment
    ) as other:
        left = Path(other.stdout.readline().strip())
        foreign = tmp_path / "unijudge-judge-foreign"
        foreign.mkdir()
        with service_folder() as folder:
            assert left.is_dir(), "a living process keeps its own"
            assert folder.is_dir()
        assert not folder.exists()
        other.kill()
        other.wait()
    assert left.is_dir()
    with service_folder():
        assert not left.exists()
        assert foreign.is_dir(), "no service made it"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_each_signal_sets_the_event_also_the_second_time(number):
    before = signal.getsignal(number)
    stop = threading.Event()
    with stopping_at_signals(stop):
        for _ in range(2):
            os.kill(os.getpid(), number)
            deadline = time.monotonic() + 10
            while not stop.is_set() and time.monotonic() < deadline:
                time.sleep(0.01)
        assert stop.is_set()
    assert signal.getsignal(number) == before


def test_nohup_is_respected():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stopping_at_signals(threading.Event()):
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_services_of_other_users_can_read_the_lock(tmp_path):
    before = os.umask(0o077)
    try:
        with port_lock(ServiceSettings(port=8000)):
            assert (tmp_path / "unijudge-port-8000.lock").stat().st_mode & 0o777 == 0o644
    finally:
        os.umask(before)


def test_a_lock_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    def refuse(path, *_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(
        SettingsError,
        match=r"port: the lock .*-8000\.lock of port 8000 cannot be read \(Permission denied\)",
    ):
        port_lock(ServiceSettings(port=8000)).__enter__()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])  # noqa: S104
def test_port_0_becomes_a_known_free_port(host):
    chosen = with_port(ServiceSettings(host=host, port=0))
    assert 1024 < chosen.port < 65536
    assert chosen.url == f"http://{host}:{chosen.port}"
    with pytest.raises(SettingsError, match=r"cannot listen on 203\.0\.113\.1"):
        with_port(ServiceSettings(host="203.0.113.1", port=0))
    given = ServiceSettings(port=8000)
    assert with_port(given) is given
