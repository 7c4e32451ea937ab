"""The judge service, started as a person starts it."""

import contextlib
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil

UNIJUDGE = Path(sys.executable).parent / "unijudge"


@contextlib.contextmanager
def service(tmp_path, *settings, file=None, wait=True):
    """Yields (process, URL, log) of `unijudge judge serve`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path / "service.log"
    overrides = [f"port={port}", *settings]
    with log.open("w") as out:
        process = subprocess.Popen(
            [UNIJUDGE, "judge", "serve", *([file] if file else []), *overrides],
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 120
        while wait and time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(urllib.error.URLError, OSError):
                urllib.request.urlopen(f"{url}/readyz", timeout=5).close()  # noqa: S310
                if "judge ready" in log.read_text():
                    break
            time.sleep(0.2)
        yield process, url, log
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(60)


UNTRAINED = ("health.min_label_mass=0", "health.canary_every_s=0")
"""A model with random weights does not answer the question."""


def replica_pids(process):
    """The process ids of the service's replicas, among the children of the Ray that the service started."""

    def is_replica(child):
        try:
            return "ServeReplica" in " ".join(child.cmdline())
        except psutil.NoSuchProcess:  # the process has ended since it was listed, or is a zombie
            return False

    return {
        child.pid
        for child in psutil.Process(process.pid).children(recursive=True)
        if is_replica(child)
    }
