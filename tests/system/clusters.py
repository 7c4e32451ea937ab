"""A separate Ray cluster on this machine."""

import contextlib
import socket
import subprocess
import time

import psutil

from tests.system.services import UNIJUDGE

RAY = UNIJUDGE.parent / "ray"


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def kill(raylet):
    """Kills a machine of a cluster, with all its processes."""
    for process in [
        *psutil.Process(raylet.pid).children(recursive=True),
        psutil.Process(raylet.pid),
    ]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    raylet.wait(10)


def wait_for_machines(number):
    """Waits until this number of machines has joined the cluster."""
    deadline = time.monotonic() + 60
    while (
        subprocess.run([RAY, "status"], capture_output=True, text=True, check=False).stdout.count(
            "node_"
        )
        < number
    ):
        assert time.monotonic() < deadline
        time.sleep(0.5)


@contextlib.contextmanager
def cluster(monkeypatch, *machines, head="--include-dashboard=false"):
    """Yields the address of a Ray cluster on loopback that requires a token, and its raylets with these options."""
    port = free_port()
    address = f"127.0.0.1:{port}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    subprocess.run([RAY, "get-auth-token", "--generate"], check=True, capture_output=True)
    roles = [f"--head --port={port} {head}"] + [f"--address={address}"] * (len(machines) - 1)
    raylets = []
    try:
        for role, options in zip(roles, machines, strict=True):
            agent = f"--dashboard-agent-listen-port={free_port()}"  # the default port is the same for all clusters
            start = f"start {role} --node-ip-address=127.0.0.1 --block {agent} {options}"
            raylets.append(
                subprocess.Popen(
                    [RAY, *start.split()], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
                )
            )
            wait_for_machines(
                len(raylets)
            )  # two raylets that start at once may take the same ports
        yield address, raylets
    finally:
        for raylet in raylets:
            if raylet.poll() is None:
                kill(raylet)
