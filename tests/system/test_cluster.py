"""The service on a Ray cluster that another program started, and the ports of Ray that answer without a token."""

import concurrent.futures
import contextlib
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from http.client import HTTPException

import grpc
import psutil

from tests.system.clusters import RAY, cluster
from tests.system.services import service
from unijudge.client.client import judge_now
from unijudge.content import Content

SCRIPTED = "model.backend=scripted"
CAT, DOG = Content(text="a cat"), Content(text="a dog")


def test_a_service_joins_a_cluster_and_leaves_the_cluster_running(tmp_path, monkeypatch):
    """Ray is told that two machines have one GPU each. Two replicas start, and a replica over two GPUs is refused."""
    with cluster(monkeypatch, *["--num-cpus=3 --num-gpus=1"] * 2) as (address, _):
        joined = (SCRIPTED, f"address={address}")
        two = ("replicas=2", "gpus_per_replica=1")
        with service(tmp_path, *joined, *two) as (process, url, log):
            assert len(judge_now(url, CAT, [DOG])) == 1, log.read_text()
            rival = tmp_path / "rival"
            rival.mkdir()
            with service(rival, *joined, wait=False) as (second, _, said):
                assert second.wait(120) == 1
                assert (
                    "already runs an application 'judge', which this service would replace"
                    in said.read_text()
                )
            assert len(judge_now(url, CAT, [DOG])) == 1, "the first one is left alone"
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0, log.read_text()
        split = ("gpus_per_replica=2", "tensor_parallel_size=2")
        with service(tmp_path, *joined, *split, wait=False) as (process, _, log):
            assert process.wait(120) == 1, log.read_text()
            assert (
                "1 replicas cannot be placed: each needs 2 GPUs and 1 CPUs on one machine"
                in log.read_text()
            )
            assert "have 1 GPUs and 3 CPUs, 1 GPUs and 3 CPUs" in log.read_text()
        assert subprocess.run([RAY, "status"], capture_output=True, check=False).returncode == 0


LISTENERS = {
    "unijudge": "grpc",
    "gcs_server": "grpc",
    "raylet": "grpc",
    "ray::ServeController": "grpc",
    "ray::ServeReplica": "grpc",
    "ray::ProxyActor": "grpc",  # this is also the service's own port
    "ray::DashboardAgent": "grpc metrics token",
    "ray::RuntimeEnvAgent": "token",
    "python": "metrics",  # the monitors of the autoscaler and of the dashboard
}
"""Who of a local service may listen, and what a stranger may hear there."""
CALLS = (
    "/ray.rpc.NodeInfoGcsService/GetAllNodeInfo",
    "/ray.rpc.CoreWorkerService/PushTask",
    "/ray.rpc.NodeManagerService/GetNodeStats",
)
"""Of the cluster's state, of workers (it runs code) and of raylets: whichever of them a port knows wants the token."""


def answers_on(ip, port):
    """Classifies the answers to a client without a token: metrics, a request for the token, gRPC that needs the token,
    or too much.
    """
    ip = {"::": "127.0.0.1", "0.0.0.0": "127.0.0.1"}.get(ip, ip)  # noqa: S104
    try:
        with urllib.request.urlopen(f"http://{ip}:{port}/api/job_agent/jobs/", timeout=5) as answer:
            return "metrics" if answer.read(6) == b"# HELP" else "too much"
    except urllib.error.HTTPError as error:
        return "token" if error.code == 401 else "too much"
    except HTTPException:
        codes = {refusal(f"{ip}:{port}", call) for call in CALLS}
        return "grpc" if codes <= {"UNAUTHENTICATED", "UNIMPLEMENTED"} else f"too much: {codes}"


def refusal(address, call):
    with grpc.insecure_channel(address) as channel:
        try:
            channel.unary_unary(call)(b"", timeout=5)
        except grpc.RpcError as error:
            return error.code().name
    return "OK"


def test_only_the_services_own_port_answers_clients_without_a_token(tmp_path):
    """Except the service's own port on loopback, no port answers a client without a token with more than metrics."""
    with service(tmp_path, SCRIPTED) as (process, url, _):
        ours = int(url.rpartition(":")[2])
        found = []
        for child in [
            psutil.Process(process.pid),
            *psutil.Process(process.pid).children(recursive=True),
        ]:
            with contextlib.suppress(psutil.Error):
                name = child.name().split(".")[0] if "::" in child.name() else child.name()
                who = ":".join(name.split(":")[:3])
                found += [
                    (who, *s.laddr)
                    for s in child.net_connections("inet")
                    if s.status == psutil.CONN_LISTEN
                ]
        assert len(found) > 5
        assert [(ip, port) for _, ip, port in found if port == ours] == [("127.0.0.1", ours)]
        assert not {port for *_, port in found} & {8265, 10001}, (
            "Ray's dashboard or its client server is open"
        )
        theirs = [one for one in found if one[2] != ours]
        # The ports are tried in parallel, because a port without gRPC answers nothing until the time is over.
        with concurrent.futures.ThreadPoolExecutor(32) as pool:
            told = list(pool.map(lambda one: answers_on(*one[1:]), theirs))
            refused = list(
                pool.map(
                    lambda one: {refusal(f"127.0.0.1:{one[2]}", call) for call in CALLS}, found
                )
            )
        for (who, ip, port), what in zip(theirs, told, strict=True):
            assert what in LISTENERS.get(who, "").split(), (who, ip, port, what)
        guarded = {
            who
            for (who, _, _), codes in zip(found, refused, strict=True)
            if "UNAUTHENTICATED" in codes
        }
        assert guarded >= {
            "gcs_server",
            "raylet",
            "ray::ServeReplica",
            "ray::ServeController",
            "ray::ProxyActor",
        }
        (gcs,) = {port for who, _, port in found if who == "gcs_server"}
        entering = [sys.executable, "-c", f"import ray; ray.init(address='127.0.0.1:{gcs}')"]
        strangers = (
            {"RAY_AUTH_MODE": "disabled"},
            {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64},
        )
        tried = [
            subprocess.Popen(
                entering,
                env=os.environ | stranger,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
            for stranger in strangers
        ]
        for one in tried:
            _, said = one.communicate()
            assert one.returncode == 1
            assert b"Failed to connect" in said
