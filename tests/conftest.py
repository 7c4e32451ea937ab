"""Fixtures that several tests share."""

import socket
import subprocess
import sys
import time
import urllib.request
import uuid

import pytest
from xdist.scheduler import LoadScopeScheduling

from unijudge.judging.verdicts import JudgeIdentity

CLUSTERS = ("tests/system/", "tests/hostile/", "tests/vllm/")
"""Their tests fill the machine: clusters, and the whole pipeline. One at a time, in one of the two processes; vLLM is
there too, since it leaves threads and a process group, and the rest has tests that fork.
"""


class _Side(LoadScopeScheduling):
    """The two groups that `make test` runs in parallel: tests with clusters in one process, and all other files in the
    other process. Both groups take about the same time. After adding a long test, check --durations.
    """

    def _split_scope(self, nodeid):
        return "clusters" if nodeid.startswith(CLUSTERS) else nodeid.partition("::")[0]


def pytest_xdist_make_scheduler(config, log):
    return _Side(config, log)


@pytest.fixture
def identity():
    return JudgeIdentity(
        model="test", weights="0", prompt_fingerprint="p", yes="Yes", no="No", yes_id=1, no_id=2, order="query_first",
        min_pixels=1, max_pixels=2, dtype="float32", head_dtype="float32", backend="scripted", backend_version="1",
    )  # fmt: skip


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """The folder of a tiny, untrained Qwen2.5-VL."""
    from demo.tiny_model import make_model

    folder = tmp_path_factory.mktemp("models") / "tiny"
    make_model(folder)
    return folder


@pytest.fixture(scope="session")
def s3_server():
    """The URL of a local S3 server.

    The server runs in its own process, because its web framework disturbs vLLM in the same process.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            break
        except OSError:
            assert server.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
    yield url
    server.terminate()
    server.wait(10)


@pytest.fixture
def bucket(s3_server, monkeypatch):
    """The URL of a new, empty bucket."""
    import s3fs

    for name, value in [
        ("ACCESS_KEY_ID", "key"),
        ("SECRET_ACCESS_KEY", "secret"),
        ("DEFAULT_REGION", "us-east-1"),
    ]:
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    s3fs.S3FileSystem.clear_instance_cache()
    monkeypatch.setattr("unijudge.storage.stores.LONGEST_WAIT_S", 0)
    name = f"bucket-{uuid.uuid4().hex}"
    s3fs.S3FileSystem().mkdir(name)
    yield f"s3://{name}"
    s3fs.S3FileSystem.clear_instance_cache()
