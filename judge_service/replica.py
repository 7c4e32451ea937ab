"""The service on Ray Serve: N replicas behind one port, started and drained by `unijudge judge serve`.

The only file of this package that imports ray. A request goes whole to one replica: its prefix is shared there.
"""

import logging
import os
import shutil
import signal
import socket
import tempfile
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import ray
from fastapi import FastAPI
from ray import serve
from ray.exceptions import AuthenticationError
from ray.serve.config import BackpressureConfig
from ray.serve.schema import ApplicationStatus, ApplicationStatusOverview
from ray.util.placement_group import placement_group, remove_placement_group

from judge_service.app import create_app
from judge_service.backends import open_judge
from judge_service.blobs import BlobStore
from judge_service.counting import counter_of
from judge_service.health import WatchedJudge
from judge_service.preflight import check_free, check_machine, passed_names
from judge_service.settings import ServiceSettings
from unijudge.errors import JudgeError, SettingsError
from unijudge.judging import served_otherwise

logger = logging.getLogger(__name__)

APPLICATION = "judge"
PLACEMENT_S = 10
"""How long a cluster may take to find places for all replicas."""
START_POLL_S = 0.5
OBJECT_STORE_BYTES = 2**30
"""Of a local Ray. Nothing large passes through it; Ray's own choice can be more than a container's /dev/shm."""


@serve.deployment(name="judge")
@serve.ingress()
class JudgeReplica:
    """One copy of the model and its HTTP application."""

    async def __init__(self, settings: ServiceSettings):  # type: ignore[misc]  # Ray Serve awaits it
        """Loads the model and scores known pairs: what is wrong with them stands in the deployment's message."""
        health = settings.health
        if settings.model.backend == "scripted":  # it cannot tell a match from a mismatch, and does not claim to
            health = health.model_copy(update={"canary_every_s": 0})
        self._settings = settings
        judge = open_judge(settings)
        self._counter = counter_of(judge)
        self._judge = WatchedJudge(judge, health)
        await self._judge.check_ready()

    def __serve_build_asgi_app__(self) -> FastAPI:
        blobs = self._settings.blobs
        store = BlobStore(blobs.folder, max_bytes=blobs.max_bytes, young_s=blobs.young_s) if blobs.folder else None
        return create_app(
            self._judge,
            self._settings.limits,
            self._settings.key_sha256,
            store,
            serve.get_replica_context().replica_tag,
            counter=self._counter,
            replicas=self._settings.replicas,
        )

    async def check_health(self) -> None:
        """Ray asks; a replica that cannot score a pair, or is unfit to, is replaced."""
        self._judge.check_fit()
        await self._judge.check_alive()


def run(settings: ServiceSettings) -> None:
    """Starts the replicas and serves until SIGINT or SIGTERM; then requests in flight finish, for `drain_s`.

    Raises:
        SettingsError: The cluster cannot be reached, or lacks the GPUs or CPUs that the replicas need.
        JudgeError: The replicas did not start; their own error is in the message.
    """
    with tempfile.TemporaryDirectory(prefix="unijudge-images-") as folder:
        blobs = settings.blobs
        if settings.address is None and blobs.folder is None:  # all replicas are on this machine
            room = min(blobs.max_bytes, shutil.disk_usage(folder).free // 2)
            blobs = blobs.model_copy(update={"folder": Path(folder), "max_bytes": room})
        elif settings.address is None and blobs.folder is not None:
            blobs = blobs.model_copy(update={"folder": blobs.folder.absolute()})  # replicas work elsewhere
        elif blobs.folder is not None and not blobs.folder.is_absolute():
            raise SettingsError(f"blobs.folder: {blobs.folder}: on a cluster, give the whole path")
        here: dict[str, Any] = {"blobs": blobs}
        if settings.address is None and settings.log_folder is not None:
            here["log_folder"] = settings.log_folder.absolute()
        _serve(settings.model_copy(update=here))


def _serve(settings: ServiceSettings) -> None:
    check_machine(settings)
    model = settings.model
    for doubt in served_otherwise(Path(model.name), settings.prompt, model.min_pixels, model.max_pixels):
        logger.warning("%s", doubt)
    _check_cluster(settings)
    stop = threading.Event()

    def on_signal(number: int, _: FrameType | None) -> None:
        logger.info("%s: finishing the requests in flight", signal.Signals(number).name)
        stop.set()

    begun = False
    try:
        serve.start(
            http_options={
                "host": settings.host,
                "port": settings.port,
                "request_timeout_s": settings.request_timeout_s,
            }
        )
        deployment: Any = JudgeReplica
        deployment = deployment.options(
            num_replicas=settings.replicas,
            max_ongoing_requests=settings.max_ongoing_requests,
            max_queued_requests=settings.max_queued_requests,
            backpressure_config=BackpressureConfig(status_code=429, retry_after_s=1),
            graceful_shutdown_timeout_s=settings.drain_s,
            health_check_period_s=10,
            health_check_timeout_s=settings.health.timeout_s + 10,
            max_constructor_retry_count=settings.start_attempts,
            ray_actor_options={
                "num_cpus": settings.cpus_per_replica,
                "num_gpus": settings.gpus_per_replica,
                "runtime_env": {"env_vars": replica_environment(settings)},
            },
        )
        begun = True
        target = serve.RunTarget(target=deployment.bind(settings), name=APPLICATION, route_prefix="/")
        serve.run_many([target], wait_for_applications_running=False)
        _wait_until_running(settings.start_attempts)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, on_signal)
        logger.info(
            "judge ready: http://%s:%d, %d replicas; Ctrl-C drains", settings.host, settings.port, settings.replicas
        )
        stop.wait()
    finally:
        if begun:  # on a cluster of others too: replicas that failed to start would go on holding their GPUs
            serve.delete(APPLICATION)
        if settings.address is None:
            serve.shutdown()
        ray.shutdown()


def _wait_until_running(start_attempts: int) -> None:
    """Returns when every replica has started.

    Ray itself would retry for ever as soon as one replica of several runs, and say nothing.

    Raises:
        JudgeError: As many starts failed as there are attempts; the last one's error is in the message.
    """
    failures: set[str] = set()
    while True:
        application = serve.status().applications[APPLICATION]
        if application.status == ApplicationStatus.RUNNING:
            return
        # Each failure has its own text: it names the replica's process.
        failures |= {one.message for one in application.deployments.values() if "failed to start" in one.message}
        gave_up = application.status in (ApplicationStatus.DEPLOY_FAILED, ApplicationStatus.UNHEALTHY)
        if gave_up or len(failures) >= start_attempts:
            raise JudgeError(f"the replicas did not start: {_reason(application)}")
        time.sleep(START_POLL_S)


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


def _check_cluster(settings: ServiceSettings) -> None:
    """Joins or starts Ray, and makes sure that the replicas fit: Ray itself would wait for ever."""
    needed = {
        "CPU": settings.cpus_per_replica * settings.replicas,
        "GPU": settings.gpus_per_replica * settings.replicas,
    }
    if settings.address is None:
        check_free(settings.host, settings.port)
        # A local Ray counts cores to place replicas, not to bind them: two for its own actors come on top.
        ray.init(
            address="local",
            num_cpus=int(needed["CPU"]) + 2,
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=False,
            log_to_driver=False,
        )
    else:
        _join(settings.address)
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


def _join(address: str) -> None:
    """Connects to a running Ray; looks first whether anybody listens there, which Ray would wait minutes for."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        if host:
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(address=address)
    except (OSError, ValueError, AuthenticationError) as error:
        raise SettingsError(
            f"address: no Ray cluster lets us in at {address!r} ({error}); is it running, and are RAY_AUTH_MODE and "
            "the token here those of the cluster?"
        ) from error


def _reason(application: ApplicationStatusOverview) -> str:
    """The message of the replicas' own failure, out of Ray's status."""
    messages = [deployment.message for deployment in application.deployments.values()]
    lines = [line.strip() for line in "\n".join(messages).splitlines() if line.strip()]
    ours = [line for line in lines if line.startswith("unijudge.errors.")]
    return (ours or lines or ["no message"])[-1].removeprefix("unijudge.errors.")
