"""The service from its start to its end: `unijudge judge serve`.

The service watches its replicas, and writes their state to a file (`front.state`). A signal ends the service. Running
requests then have `drain_timeout_s` to finish. Waiting and new requests are rejected.
"""

import logging
import os
import shutil
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayError
from ray.serve._private.constants import (
    SERVE_CONTROLLER_NAME,
    SERVE_LOGGER_NAME,
    SERVE_NAMESPACE,
)

from judge_service.backends import check_model_name
from judge_service.backends.preflight import check_machine
from judge_service.cluster import answer, dead_parts, join, replica_environment
from judge_service.front.gate import rules_of
from judge_service.front.proxy import ProxyOrders
from judge_service.front.state import ServiceState, StateFile
from judge_service.process import port_lock, service_folder, stopping_at_signals, with_port
from judge_service.replica.replica import deployment_of
from judge_service.replica_history import Replicas, reason_of
from judge_service.settings import ServiceSettings
from unijudge.errors import DataError, JudgeError, SettingsError
from unijudge.judging.reranker_file import served_otherwise

logger = logging.getLogger(__name__)

APPLICATION = "judge"
POLL_S = 0.5
FALL_S = 5
"""Seconds of a backward step between two checks that mean that the wall clock was set back."""
STOP_S = 30
"""Seconds in which Ray Serve's controller must stop."""
RAY_MARGIN_S = 30
"""Seconds by which Ray's timeout of a request is longer than ours, so that clients get our error with its reason."""


def run(settings: ServiceSettings) -> None:
    """Starts the replicas, and serves until SIGINT, SIGTERM or SIGHUP.

    After the signal, running requests have `drain_timeout_s` to finish.

    Raises:
        SettingsError: The port is in use, or the name can be no model; or the cluster cannot be reached, has too few
            GPUs or CPUs for the replicas, or already runs a judge service.
        JudgeError: The replicas did not start, or cannot be restarted. The message has the error of the replicas.
    """
    stop = threading.Event()
    settings = with_port(settings)
    with stopping_at_signals(stop), port_lock(settings), service_folder() as folder:
        check_machine(settings)
        if settings.address is None:
            check_model_name(settings.model)
        model = settings.model
        for doubt in served_otherwise(
            Path(model.name), settings.prompt, model.min_pixels, model.max_pixels
        ):
            logger.warning("%s", doubt)
        _Service(_with_folders(settings, folder), folder / "state.json", stop).run()


class _Service:
    """A service on a cluster."""

    def __init__(self, settings: ServiceSettings, state: Path, stop: threading.Event):
        self._settings = settings
        self._state_path = state
        self._stop = stop
        self._state = ServiceState(phase="starting", reason="the service starts")
        self._is_stale = False
        """Whether the file could not be written after the last change."""
        self._is_deployed = False
        self._replicas = Replicas(settings.replicas, settings.start_attempts)

    def run(self) -> None:
        """Deploys the replicas, watches them, and drains them at the end."""
        # Ray's proxies read the rules of the gate from the environment.
        settings = self._settings
        local = settings.address is None
        self._publish(self._state)
        if local:
            rules = rules_of(settings.front, settings.limits, settings.key_sha256)
            os.environ |= ProxyOrders(rules=rules, state=self._state_path).environment()

        try:
            join(settings)
            check_alone(settings)
            if self._stop.is_set():
                return
            try:
                answer(self._deploy, lambda: bool(dead_parts()))
            except RayError as error:
                raise JudgeError(
                    f"Ray Serve did not start: {reason_of(str(error))}. Ray's processes import packages from the "
                    "current folder first, so a file there may hide a package. Start the service from another "
                    "folder. If this does not help, check Ray's logs, in its temporary folder under session_latest/logs"
                ) from error
            self._watch()
        finally:
            # Waiting requests are rejected before the replicas end.
            self._publish(
                ServiceState(phase="stopping", reason="the service is being stopped. Retry later")
            )
            answer(
                partial(_take_down, deployed=self._is_deployed, local=local),
                lambda: bool(dead_parts()),
            )
            ray.shutdown()

    def _deploy(self) -> None:
        """Tells Ray to start the replicas, without waiting for them."""
        settings = self._settings
        front = settings.front
        longest = front.body_timeout_s + front.request_timeout_s + RAY_MARGIN_S
        serve.start(
            http_options={
                "host": settings.host,
                "port": settings.port,
                "request_timeout_s": longest,
            }
        )
        state = StateFile(self._state_path) if settings.address is None else None
        application = deployment_of(settings, state, replica_environment(settings))
        self._is_deployed = True
        target = serve.RunTarget(target=application, name=APPLICATION, route_prefix="/")
        serve.run_many([target], wait_for_applications_running=False)

    def _watch(self) -> None:
        """Checks the replicas until the service is stopped.

        Raises:
            JudgeError: The replicas cannot start, another process removed them, or the local Ray has died.
        """
        started = False
        clock = _Clock()
        while not self._stop.wait(POLL_S):
            if dead := dead_parts():
                raise JudgeError(
                    f"Ray's {' and '.join(dead)} on this machine died, and the replicas with it. If main memory ran "
                    "out (see dmesg), lower replicas or add memory. Otherwise check Ray's logs, in its temporary "
                    "folder under session_latest/logs. Then start the service again"
                )
            if clock.fell() and self._settings.address is None:
                _restart_controller()

            # Ray restarts its controller by itself.
            try:
                status = answer(serve.status, lambda: self._stop.is_set() or bool(dead_parts()))
            except RayError as error:
                logger.warning("Ray does not answer: %s", error)
                continue
            if status is None:
                continue

            application = status.applications.get(APPLICATION)
            if application is None:
                raise JudgeError(
                    f"another process removed the application {APPLICATION!r} from the cluster. Start the service again"
                )
            self._publish(self._replicas.state(application))
            if self._state.ready and not started:
                started = True
                logger.info(
                    "judge ready: %s, %d replicas; Ctrl-C drains",
                    self._settings.url,
                    self._settings.replicas,
                )

    def _publish(self, state: ServiceState) -> None:
        """Writes the state if the state has changed. On a full disk the service continues, and the write is retried."""
        if state == self._state and self._state_path.exists():
            return
        try:
            state.write(self._state_path)
        except DataError as error:
            if not self._is_stale:
                logger.warning("health probes still get the previous state: %s", error)
            self._is_stale = True
            return
        self._state, self._is_stale = state, False


def _take_down(*, deployed: bool, local: bool) -> None:
    """Removes the application and, on a local Ray, Ray Serve."""
    # On a joined cluster, replicas that failed to start would otherwise keep their GPUs.
    if deployed:
        serve.delete(APPLICATION)
    if local and ray.is_initialized():
        _stop_controller()
        # Otherwise Ray Serve would report that its controller has died.
        logging.getLogger(SERVE_LOGGER_NAME).setLevel(logging.WARNING)
        serve.shutdown()


def _stop_controller() -> None:
    """Stops Ray Serve's controller. The controller ends during this call, and `serve.shutdown` would retry the call.

    Ray would then print that it failed, with infinite retries remaining, at a normal stop.
    """
    with suppress(ValueError, RayError):  # the controller has ended
        controller: Any = ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE)
        stopped = controller.graceful_shutdown.options(max_task_retries=0).remote()
        ray.get(stopped, timeout=STOP_S)


class _Clock:
    """The wall clock, compared with a clock that is never set back."""

    def __init__(self) -> None:
        self._ahead = time.time() - time.monotonic()

    def fell(self) -> bool:
        """Whether the wall clock was set back since the last call."""
        before, self._ahead = self._ahead, time.time() - time.monotonic()
        return self._ahead < before - FALL_S


def _restart_controller() -> None:
    """Restarts Ray Serve's controller. Replicas and proxies keep running.

    The controller uses the wall clock to plan its next check. If the clock was set back by an hour, the controller
    would replace no dead replica during this hour.
    """
    logger.warning("the wall clock was set back: Ray Serve's controller restarts")
    try:
        ray.kill(ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE), no_restart=False)
    except (ValueError, RayError) as error:  # the controller is already restarting
        logger.warning("Ray Serve's controller: %s", error)


def check_alone(settings: ServiceSettings) -> None:
    """Checks that no other judge service runs on the cluster.

    Raises:
        SettingsError: Another judge service runs on the cluster.
    """
    if settings.address is None:
        return
    try:
        # Only one process can have this name in Ray. The name is free again when the process ends.
        owner: Any = _Owner
        owner.options(name="unijudge-judge-owner", namespace="unijudge", num_cpus=0).remote()
    except ValueError as error:
        raise SettingsError(_other(settings)) from error
    if APPLICATION in serve.status().applications:
        raise SettingsError(_other(settings))


def _other(settings: ServiceSettings) -> str:
    return (
        f"address: the cluster at {settings.address!r} already runs an application {APPLICATION!r}, which this service "
        "would replace. Stop the other service first, or use another cluster"
    )


@ray.remote
class _Owner:
    """An actor that reserves a name."""


def _with_folders(settings: ServiceSettings, folder: Path) -> ServiceSettings:
    """Returns the settings with absolute paths, since replicas have other working folders, and with an image folder.

    Raises:
        SettingsError: The service joins a cluster, and `blobs.folder` is a relative path.
    """
    # On a local Ray all replicas can share a temporary folder.
    blobs = settings.blobs
    if settings.address is None and blobs.folder is None:
        images = folder / "images"
        images.mkdir()
        room = min(blobs.max_bytes, shutil.disk_usage(images).free // 2)
        blobs = blobs.model_copy(update={"folder": images, "max_bytes": room})
    elif settings.address is None and blobs.folder is not None:
        blobs = blobs.model_copy(update={"folder": blobs.folder.absolute()})
    elif blobs.folder is not None and not blobs.folder.is_absolute():
        raise SettingsError(
            f"blobs.folder: {blobs.folder}: is a relative path. On a cluster, set an absolute path"
        )

    changes: dict[str, Any] = {"blobs": blobs}
    if settings.address is None and settings.log_folder is not None:
        changes["log_folder"] = settings.log_folder.absolute()
    return settings.model_copy(update=changes)
