"""The Ray cluster of the replicas: a local Ray that the service starts, or an existing cluster that it joins."""

import errno
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import ray
from ray.exceptions import AuthenticationError
from ray.util.placement_group import placement_group, remove_placement_group

from judge_service.backends.preflight import check_free, passed_names
from judge_service.settings import ServiceSettings
from unijudge.errors import JudgeError, SettingsError
from unijudge.shown import shown
from unijudge.storage.access_errors import in_one_line

T = TypeVar("T")

PLACEMENT_S = 10
"""Seconds in which a cluster must find places for all replicas."""
ORPHANS_S = 10
"""Seconds in which the processes of a killed service must release its port."""
VITAL = frozenset({"raylet", "gcs_server"})
"""Ray's names of the processes that are never restarted."""
LOOK_S = 0.5
OBJECT_STORE_BYTES = 2**30
"""The size of a local Ray's object store, which gets no large objects.

Ray's default can be larger than the /dev/shm of a container.
"""

SERVE = MappingProxyType(
    {
        # Ray restarts a proxy after three failed checks. With Ray's default of ten seconds, all clients would wait 30.
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
        # A dead or unfit replica cannot finish its requests. Its clients would only wait.
        "RAY_SERVE_FORCE_STOP_UNHEALTHY_REPLICAS": "1",
    }
)
"""Variables of Ray Serve for a local Ray. A variable of the shell takes precedence."""


def replica_environment(settings: ServiceSettings) -> dict[str, str]:
    """Returns the variables that replicas get in addition to the variables of their machine.

    On a joined cluster these are variables of this shell. The replicas of a local Ray inherit all variables anyway. A
    replica without a GPU must not see a GPU, but Ray would show all GPUs of the machine to this replica.
    """
    names = passed_names(settings) if settings.address is not None else []
    environment = {name: os.environ[name] for name in names}
    if not settings.gpus_per_replica:
        environment["CUDA_VISIBLE_DEVICES"] = ""
    return environment


def join(settings: ServiceSettings) -> None:
    """Joins or starts Ray, and checks that all replicas fit. Without this check Ray would wait forever.

    Raises:
        SettingsError: The cluster is too small or cannot be reached, or the port is in use.
        JudgeError: A local Ray did not start.
    """
    needed = {
        "CPU": settings.cpus_per_replica * settings.replicas,
        "GPU": settings.gpus_per_replica * settings.replicas,
    }
    if settings.address is None:
        _wait_until_free(settings.host, settings.port)
        # A local Ray does not bind replicas to cores, so the number need not exist. Ray's own actors need two more.
        _start_ray(int(needed["CPU"]) + 2)
    else:
        _connect(settings.address)

    # Other jobs use a part of a shared cluster. A local Ray has no other jobs.
    free = ray.cluster_resources() if settings.address is None else ray.available_resources()
    for kind, amount in needed.items():
        if amount > free.get(kind, 0):
            ray.shutdown()
            raise SettingsError(
                f"{settings.replicas} replicas need {amount:g} {kind}s, but this Ray has {free.get(kind, 0):g} free. "
                f"Lower replicas or {kind.lower()}s_per_replica, or join a larger cluster with address"
            )

    _check_placement(settings)


def dead_parts() -> list[str]:
    """Returns the dead processes of the local Ray without which Ray cannot work: `raylet`, `gcs_server`."""
    node = ray._private.worker._global_node  # noqa: SLF001  Ray's public API does not report these processes
    return [] if node is None else [name for name, _ in node.dead_processes() if name in VITAL]


def answer(question: Callable[[], T], is_given_up: Callable[[], bool]) -> T | None:
    """Returns Ray's answer. None if the caller gave up first.

    The question runs in a thread, since a broken Ray never answers.

    Args:
        question: The function that asks Ray.
        is_given_up: The function that is called a few times a second, and returns whether the caller gives up.

    Raises:
        Exception: The error of the question.
    """
    if is_given_up():
        return None
    future: Future[T] = Future()

    def ask() -> None:
        try:
            future.set_result(question())
        except BaseException as error:  # noqa: BLE001  the waiting thread raises the error
            future.set_exception(error)

    threading.Thread(target=ask, name="asks ray", daemon=True).start()
    while not wait([future], LOOK_S).done:
        if is_given_up():
            return None
    return future.result()


def _wait_until_free(host: str, port: int) -> None:
    """Returns when the port is free. The proxy of a killed service ends shortly after the service.

    Raises:
        SettingsError: Another program still listens on the port, or this machine does not have the host's address.
    """
    deadline = time.monotonic() + ORPHANS_S
    while True:
        try:
            check_free(host, port)
        except SettingsError as error:
            is_in_use = (
                isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EADDRINUSE
            )
            if not is_in_use or time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return


def _init(**options: Any) -> None:
    """Calls `ray.init` in a separate thread, where Ray installs no signal handlers and no signal interrupts Ray."""
    logging.getLogger("ray._private.worker").addFilter(
        lambda record: "SIGTERM handler" not in str(record.msg)
    )
    started: Future[None] = Future()

    def start() -> None:
        try:
            ray.init(**options)
        except BaseException as error:  # noqa: BLE001  the waiting thread raises the error
            started.set_exception(error)
            return
        started.set_result(None)

        # This thread must not end: Linux would then end the processes that it has started.
        threading.Event().wait()

    threading.Thread(target=start, name="ray", daemon=True).start()
    started.result()


def _start_ray(cpus: int) -> None:
    """Starts a local Ray.

    Raises:
        JudgeError: Ray does not start.
    """
    os.environ.update(SERVE | os.environ)
    if not _holds_token():
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    try:
        _init(
            address="local",
            num_cpus=cpus,
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=False,
            log_to_driver=False,
        )
    except Exception as error:  # Ray raises many kinds of errors here
        raise JudgeError(
            f"Ray did not start on this machine ({error}). If the machine is busy, retry. Otherwise check Ray's logs, "
            "in its temporary folder under session_latest/logs"
        ) from error


def _holds_token() -> bool:
    """Whether Ray can find a token, or can create a token in the home of this user. A container may not allow this."""
    if os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"):
        return True
    try:
        folder = Path.home() / ".ray"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return False
    return os.access(folder / "auth_token", os.R_OK) or os.access(folder, os.W_OK | os.X_OK)


def _check_placement(settings: ServiceSettings) -> None:
    """Checks that each replica finds all of its GPUs on one machine. The totals of the cluster do not show this.

    Raises:
        SettingsError: The replicas do not fit on the machines.
    """
    # Reserve a place for every replica, and release all places.
    bundle = {"CPU": settings.cpus_per_replica, "GPU": settings.gpus_per_replica}
    needed = {kind: amount for kind, amount in bundle.items() if amount}
    trial = placement_group([needed] * settings.replicas, strategy="PACK")
    fits = trial.wait(timeout_seconds=PLACEMENT_S)
    remove_placement_group(trial)

    if not fits:
        machines = ", ".join(
            f"{node['Resources'].get('GPU', 0):g} GPUs and {node['Resources'].get('CPU', 0):g} CPUs"
            for node in ray.nodes()
            if node["Alive"]
        )
        ray.shutdown()
        raise SettingsError(
            f"{settings.replicas} replicas cannot be placed: each needs {settings.gpus_per_replica:g} GPUs and "
            f"{settings.cpus_per_replica:g} CPUs on one machine, and this Ray's machines have {machines}, including "
            "what other jobs use. Lower gpus_per_replica together with tensor_parallel_size, or lower replicas"
        )


def _connect(address: str) -> None:
    """Connects to a running Ray. A quick check of the port comes first, since Ray itself would wait for minutes.

    Raises:
        SettingsError: The cluster cannot be reached, or does not accept the token.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        if host:
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
        _init(address=address)
    except (OSError, ValueError, RuntimeError, AuthenticationError) as error:
        raise SettingsError(
            f"address: cannot connect to the Ray cluster at {shown(address)} ({in_one_line(error)}). Check that the "
            "cluster is running, and that RAY_AUTH_MODE and the token match"
        ) from error
