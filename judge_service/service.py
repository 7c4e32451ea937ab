"""The service from its start to its end: `unijudge judge serve`.

It watches its replicas as long as it runs, and writes what it sees to a file (`front.state`). A signal ends it:
requests in work are finished, for `drain_timeout_s`; requests that wait or come are refused.
"""

import logging
import os
import shutil
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayError
from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE
from ray.serve.schema import ApplicationStatus, ApplicationStatusOverview

from judge_service.backends.preflight import check_machine
from judge_service.cluster import answer, dead_parts, join, replica_environment
from judge_service.front.gate import rules_of
from judge_service.front.proxy import ProxyOrders
from judge_service.front.state import ServiceState, StateFile
from judge_service.process import port_lock, service_folder, stopping_at_signals, with_port
from judge_service.replica.replica import DEPLOYMENT, deployment_of
from judge_service.settings import ServiceSettings
from unijudge.errors import DataError, JudgeError, SettingsError
from unijudge.judging.reranker_file import served_otherwise

logger = logging.getLogger(__name__)

APPLICATION = "judge"
POLL_S = 0.5
FALL_S = 5
"""By how much the wall clock falls between two looks when somebody puts it back."""
RAY_MARGIN_S = 30
"""Ray's own limit of a request's time is longer than ours by this: our answer says why."""


def run(settings: ServiceSettings) -> None:
    """Starts the replicas and serves until SIGINT, SIGTERM or SIGHUP. Then requests in work finish.

    They have `drain_timeout_s` for it.

    Raises:
        SettingsError: The port is taken, or the cluster cannot be reached, lacks GPUs or CPUs for the replicas, or runs
            such a service already.
        JudgeError: The replicas did not start, or can no longer start; their own error is in the message.
    """
    stop = threading.Event()
    settings = with_port(settings)
    with stopping_at_signals(stop), port_lock(settings), service_folder() as folder:
        check_machine(settings)
        model = settings.model
        for doubt in served_otherwise(Path(model.name), settings.prompt, model.min_pixels, model.max_pixels):
            logger.warning("%s", doubt)
        _Service(_with_folders(settings, folder), folder / "state.json", stop).run()


class _Service:
    """One service on one cluster."""

    def __init__(self, settings: ServiceSettings, state: Path, stop: threading.Event):
        self._settings = settings
        self._state_path = state
        self._stop = stop
        self._state = ServiceState(phase="starting", reason="the service starts")
        self._is_stale = False  # what the file says
        self._is_deployed = False
        self._replicas = Replicas(settings.replicas, settings.start_attempts)

    def run(self) -> None:
        """Deploys, watches, drains."""
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
                    f"Ray Serve did not start: {_reason(str(error))}. Ray's processes look for packages in the folder "
                    "that the service is started from, so a file there may stand in a package's place: start it from "
                    "another folder. Else look into Ray's logs, in its temporary folder under session_latest/logs"
                ) from error
            self._watch()
        finally:
            self._publish(ServiceState(phase="stopping", reason="the service is being stopped. Come back later"))
            answer(partial(_take_down, deployed=self._is_deployed, local=local), lambda: bool(dead_parts()))
            ray.shutdown()

    def _deploy(self) -> None:
        """Has Ray start the replicas; it does not wait for them."""
        settings = self._settings
        front = settings.front
        longest = front.body_timeout_s + front.request_timeout_s + RAY_MARGIN_S
        serve.start(http_options={"host": settings.host, "port": settings.port, "request_timeout_s": longest})
        state = StateFile(self._state_path) if settings.address is None else None
        application = deployment_of(settings, state, replica_environment(settings))
        self._is_deployed = True
        target = serve.RunTarget(target=application, name=APPLICATION, route_prefix="/")
        serve.run_many([target], wait_for_applications_running=False)

    def _watch(self) -> None:
        """Looks at the replicas until the service is stopped.

        Raises:
            JudgeError: They cannot start, somebody removed them, or our own Ray has died.
        """
        started = False
        clock = _Clock()
        while not self._stop.wait(POLL_S):
            if dead := dead_parts():
                raise JudgeError(
                    f"Ray's {' and '.join(dead)} on this machine died, and the replicas with it. Where main memory ran "
                    "out (dmesg says so), lower replicas or add memory; else look into Ray's logs, in its temporary "
                    "folder under session_latest/logs. Then start the service again"
                )
            if clock.fell() and self._settings.address is None:
                _restart_controller()
            try:
                found = answer(serve.status, lambda: self._stop.is_set() or bool(dead_parts()))
            except RayError as error:  # Ray starts its controller again by itself
                logger.warning("Ray does not answer: %s", error)
                continue
            if found is None:
                continue
            application = found.applications.get(APPLICATION)
            if application is None:
                raise JudgeError(f"the application {APPLICATION!r} was removed from the cluster by somebody else")
            self._publish(self._replicas.state(application))
            if self._state.ready and not started:
                started = True
                logger.info("judge ready: %s, %d replicas; Ctrl-C drains", self._settings.url, self._settings.replicas)

    def _publish(self, state: ServiceState) -> None:
        """Writes the state where it has changed; a disk that is full ends nothing, and is tried again."""
        if state == self._state and self._state_path.exists():
            return
        try:
            state.write(self._state_path)
        except DataError as error:
            if not self._is_stale:
                logger.warning("probes are answered as before: %s", error)
            self._is_stale = True
            return
        self._state, self._is_stale = state, False


def _take_down(*, deployed: bool, local: bool) -> None:
    """Removes what was started on Ray."""
    if deployed:  # on a cluster of others too: replicas that failed to start would go on holding their GPUs
        serve.delete(APPLICATION)
    if local and ray.is_initialized():
        serve.shutdown()


class _Clock:
    """The wall clock, held against one that never jumps."""

    def __init__(self) -> None:
        self._ahead = time.time() - time.monotonic()

    def fell(self) -> bool:
        """Whether it was put back since the last look."""
        before, self._ahead = self._ahead, time.time() - time.monotonic()
        return self._ahead < before - FALL_S


def _restart_controller() -> None:
    """Lets Ray Serve's controller begin anew; replicas and proxies go on meanwhile.

    It measures by the wall clock when to look at them next: after one that was put back by an hour it would replace
    nothing that died in this hour.
    """
    logger.warning("the wall clock was put back: Ray Serve's controller starts again")
    try:
        ray.kill(ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE), no_restart=False)
    except (ValueError, RayError) as error:  # it is away just now, and starts anew by itself
        logger.warning("Ray Serve's controller: %s", error)


class Replicas:
    """What was seen of the replicas so far, and what follows from it."""

    def __init__(self, number: int, start_attempts: int):
        """Nothing was seen yet.

        Args:
            number: How many replicas there shall be.
            start_attempts: How many starts may fail.
        """
        self._number = number
        self._start_attempts = start_attempts
        self._was_ready = False
        self._failures: set[str] = set()  # messages of starts that failed since all replicas last ran

    def state(self, application: ApplicationStatusOverview) -> ServiceState:
        """The state of the service that follows from Ray's.

        Ray itself would start failing replicas again for ever, and say nothing.

        Raises:
            JudgeError: As many starts failed as there are attempts, and not all replicas ever ran, or none does now;
                the last one's error is in the message.
        """
        deployments = application.deployments
        states: dict[str, int] = deployments[DEPLOYMENT].replica_states if DEPLOYMENT in deployments else {}
        running = states.get("RUNNING", 0)
        if running == self._number and application.status == ApplicationStatus.RUNNING:
            self._was_ready = True
            self._failures.clear()
            return ServiceState(phase="serving", ready=True)
        self._remember({one.message for one in deployments.values() if "failed to start" in one.message})
        gave_up = application.status == ApplicationStatus.DEPLOY_FAILED
        enough = gave_up or len(self._failures) >= self._start_attempts
        if enough and not (running and self._was_ready):
            messages = [one.message for one in deployments.values()]
            raise JudgeError(f"the replicas did not start: {_reason(*messages)}")
        known = f": {_reason(*self._failures)}" if self._failures else ""
        reason = f"{running} of {self._number} replicas run{known}"
        if running and self._was_ready:
            return ServiceState(phase="serving", reason=reason)
        return ServiceState(phase="broken" if self._failures else "starting", reason=reason)

    def _remember(self, failed: set[str]) -> None:
        """Keeps each failure once, and logs it: each has its own text, which names the replica's process."""
        for message in failed - self._failures:
            logger.warning("a replica did not start: %s", _reason(message))
        self._failures |= failed


def check_alone(settings: ServiceSettings) -> None:
    """Makes sure that no other service has this application's name or this Serve's address on a cluster.

    Raises:
        SettingsError: One has.
    """
    if settings.address is None:
        return
    try:
        # Ray keeps the name for as long as this process lives, and gives it to one process only.
        owner: Any = _Owner
        owner.options(name="unijudge-judge-owner", namespace="unijudge", num_cpus=0).remote()
    except ValueError as error:
        raise SettingsError(_other(settings)) from error
    if APPLICATION in serve.status().applications:
        raise SettingsError(_other(settings))


def _other(settings: ServiceSettings) -> str:
    return (
        f"address: the cluster at {settings.address!r} runs an application {APPLICATION!r} already, and this service "
        "would replace it. Stop the other one first, or start a cluster for this one"
    )


@ray.remote
class _Owner:
    """Holds a name."""


def _with_folders(settings: ServiceSettings, folder: Path) -> ServiceSettings:
    """The settings with whole paths, since replicas work elsewhere; and with a folder for images."""
    blobs = settings.blobs
    if settings.address is None and blobs.folder is None:  # all replicas are on this machine
        images = folder / "images"
        images.mkdir()
        room = min(blobs.max_bytes, shutil.disk_usage(images).free // 2)
        blobs = blobs.model_copy(update={"folder": images, "max_bytes": room})
    elif settings.address is None and blobs.folder is not None:
        blobs = blobs.model_copy(update={"folder": blobs.folder.absolute()})
    elif blobs.folder is not None and not blobs.folder.is_absolute():
        raise SettingsError(f"blobs.folder: {blobs.folder}: on a cluster, give the whole path")
    here: dict[str, Any] = {"blobs": blobs}
    if settings.address is None and settings.log_folder is not None:
        here["log_folder"] = settings.log_folder.absolute()
    return settings.model_copy(update=here)


def _reason(*messages: str) -> str:
    """The replicas' own failure, out of Ray's messages."""
    lines = [line.strip() for line in "\n".join(messages).splitlines() if line.strip()]
    ours = [line for line in lines if line.startswith("unijudge.errors.")]
    return (ours or lines or ["no message"])[-1].removeprefix("unijudge.errors.")
