"""The Ray cluster that the replicas run on: our own, or one of others that is joined."""

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
"""How long a cluster may take to find places for all replicas."""
ORPHANS_S = 10
"""How long the processes of a killed service may keep its port."""
VITAL = frozenset({"raylet", "gcs_server"})
"""Ray's names of the processes that nobody starts again."""
LOOK_S = 0.5
OBJECT_STORE_BYTES = 2**30
"""Of a local Ray. Nothing large passes through it; Ray's own choice can be more than a container's /dev/shm."""

SERVE = MappingProxyType(
    {
        # A proxy is started again at the third miss: after Ray's own ten seconds each, everybody would wait for 30.
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
        # A replica that was found dead or unfit has nothing to finish, and keeps its callers waiting.
        "RAY_SERVE_FORCE_STOP_UNHEALTHY_REPLICAS": "1",
    }
)
"""Variables of Ray Serve for a local Ray; a variable that the shell sets wins."""


def replica_environment(settings: ServiceSettings) -> dict[str, str]:
    """The variables that replicas get beside those of their machine.

    On a cluster these are variables of this shell; a local Ray's replicas inherit all of them anyway. A replica without
    a GPU must not see one: Ray would leave all GPUs of the machine visible to it.
    """
    names = passed_names(settings) if settings.address is not None else []
    environment = {name: os.environ[name] for name in names}
    if not settings.gpus_per_replica:
        environment["CUDA_VISIBLE_DEVICES"] = ""
    return environment


def join(settings: ServiceSettings) -> None:
    """Joins or starts Ray, and makes sure that the replicas fit: Ray itself would wait for ever."""
    needed = {
        "CPU": settings.cpus_per_replica * settings.replicas,
        "GPU": settings.gpus_per_replica * settings.replicas,
    }
    if settings.address is None:
        _wait_until_free(settings.host, settings.port)
        # A local Ray counts cores to place replicas, not to bind them: two for its own actors come on top.
        _start_ray(int(needed["CPU"]) + 2)
    else:
        _connect(settings.address)
    # What other jobs hold on a shared cluster is not there for us; a local Ray has no other jobs.
    have = ray.cluster_resources() if settings.address is None else ray.available_resources()
    for kind, amount in needed.items():
        if amount > have.get(kind, 0):
            ray.shutdown()
            raise SettingsError(
                f"{settings.replicas} replicas need {amount:g} {kind}s, but this Ray has {have.get(kind, 0):g} free; "
                f"lower replicas or {kind.lower()}s_per_replica, or join a larger cluster with address"
            )

    _check_placement(settings)


def dead_parts() -> list[str]:
    """The processes of our own Ray that have died, and without which it is lost: `raylet`, `gcs_server`."""
    node = ray._private.worker._global_node  # noqa: SLF001  Ray itself says nothing of them
    return [] if node is None else [name for name, _ in node.dead_processes() if name in VITAL]


def answer(question: Callable[[], T], is_given_up: Callable[[], bool]) -> T | None:
    """What Ray answers; None where it was given up first. It is asked in a thread: a lost Ray is silent for ever.

    Args:
        question: Asks it.
        is_given_up: Is looked at a few times a second.

    Raises:
        Exception: What the question raises.
    """
    if is_given_up():
        return None
    future: Future[T] = Future()

    def ask() -> None:
        try:
            future.set_result(question())
        except BaseException as error:  # noqa: BLE001  for who waits
            future.set_exception(error)

    threading.Thread(target=ask, name="asks ray", daemon=True).start()
    while not wait([future], LOOK_S).done:
        if is_given_up():
            return None
    return future.result()


def _wait_until_free(host: str, port: int) -> None:
    """Returns when the service can listen there: the proxy of a service that was killed ends a moment after it.

    Raises:
        SettingsError: Another program still listens there, or the host is not an address of this machine.
    """
    deadline = time.monotonic() + ORPHANS_S
    while True:
        try:
            check_free(host, port)
        except SettingsError as error:
            is_taken = isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EADDRINUSE
            if not is_taken or time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return


def _init(**options: Any) -> None:
    """`ray.init` in a thread of its own: there it leaves the handlers of signals alone, and no signal interrupts it."""
    logging.getLogger("ray._private.worker").addFilter(lambda record: "SIGTERM handler" not in str(record.msg))
    started: Future[None] = Future()

    def start() -> None:
        try:
            ray.init(**options)
        except BaseException as error:  # noqa: BLE001  for who waits
            started.set_exception(error)
            return
        started.set_result(None)
        # Linux ends Ray's processes when the thread that started them ends.
        threading.Event().wait()

    threading.Thread(target=start, name="ray", daemon=True).start()
    started.result()


def _start_ray(cpus: int) -> None:
    """Starts a Ray of our own.

    Raises:
        JudgeError: It does not start.
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
    except Exception as error:  # Ray has no error of its own for it
        raise JudgeError(
            f"Ray did not start on this machine ({error}). Where the machine is busy, try again; else look into Ray's "
            "logs, in its temporary folder under session_latest/logs"
        ) from error


def _holds_token() -> bool:
    """Whether Ray finds a token, or can put one into this user's home: in a container nobody may write there."""
    if os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"):
        return True
    try:
        folder = Path.home() / ".ray"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return False
    return os.access(folder / "auth_token", os.R_OK) or os.access(folder, os.W_OK | os.X_OK)


def _check_placement(settings: ServiceSettings) -> None:
    """Reserves a place for every replica, all GPUs of one on one machine, and gives them back: totals do not say it."""
    bundle = {"CPU": settings.cpus_per_replica, "GPU": settings.gpus_per_replica}
    trial = placement_group([{k: v for k, v in bundle.items() if v}] * settings.replicas, strategy="PACK")
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
            f"{settings.cpus_per_replica:g} CPUs on one machine, and this Ray's machines have {machines}, less what "
            "other jobs hold; lower gpus_per_replica with tensor_parallel_size, or replicas"
        )


def _connect(address: str) -> None:
    """Connects to a running Ray; looks first whether anybody listens there, which Ray would wait minutes for."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        if host:
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
        _init(address=address)
    except (OSError, ValueError, RuntimeError, AuthenticationError) as error:
        raise SettingsError(
            f"address: no Ray cluster lets us in at {shown(address)} ({in_one_line(error)}); is it running, and are "
            "RAY_AUTH_MODE and the token here those of the cluster?"
        ) from error
