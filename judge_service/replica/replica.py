"""A replica on Ray Serve: a copy of the model with its HTTP application. One replica answers a whole request."""

from typing import Any

from fastapi import FastAPI
from ray import serve

from judge_service.backends import open_judge
from judge_service.front.blobs import BlobStore
from judge_service.front.state import StateFile
from judge_service.replica.app import create_app
from judge_service.replica.counting import counter_of
from judge_service.replica.health import WatchedJudge
from judge_service.settings import ServiceSettings

DEPLOYMENT = "judge"
LONGEST_SILENCE_S = 30
"""Seconds without an answer after which a health check fails. After three failures Ray replaces the replica."""


@serve.deployment(name=DEPLOYMENT)
@serve.ingress()
class JudgeReplica:
    """A copy of the model with its HTTP application."""

    async def __init__(self, settings: ServiceSettings, state: StateFile | None):  # type: ignore[misc]  # Ray awaits it
        """Loads the model and scores known pairs. The message of the deployment contains an error of this method."""
        # The scripted judge cannot tell a match from a mismatch, so the known pairs say nothing about it.
        health = settings.health
        if settings.model.backend == "scripted":
            health = health.model_copy(update={"canary_every_s": 0})

        self._settings = settings
        self._state = state
        judge = open_judge(settings)
        self._counter = counter_of(judge)
        self._judge = WatchedJudge(judge, health)
        await self._judge.check_ready()

    def __serve_build_asgi_app__(self) -> FastAPI:
        blobs = self._settings.blobs
        store = None
        if blobs.folder:
            store = BlobStore(blobs.folder, max_bytes=blobs.max_bytes, young_s=blobs.min_age_s)
        return create_app(
            self._judge,
            self._settings.limits,
            self._settings.key_sha256,
            store,
            serve.get_replica_context().replica_tag,
            counter=self._counter,
            replicas=self._settings.replicas,
            front=self._settings.front,
            state=self._state,
        )

    async def check_health(self) -> None:
        """Answers Ray's health check. Ray replaces a replica whose judge is dead or unfit."""
        self._judge.check_well()


def deployment_of(
    settings: ServiceSettings, state: StateFile | None, environment: dict[str, str]
) -> Any:
    """Returns the deployment that Ray Serve runs.

    Args:
        settings: The settings of the service.
        state: The state of the service. None if the replicas cannot read the file.
        environment: Variables that replicas get in addition to the variables of their machine.
    """
    replica: Any = JudgeReplica
    return replica.options(
        num_replicas=settings.replicas,
        # Ray never queues requests: each replica has its own queue (`front.admission`).
        max_ongoing_requests=settings.front.max_requests,
        max_queued_requests=-1,
        graceful_shutdown_timeout_s=settings.drain_timeout_s,
        health_check_period_s=1,  # answered from memory
        health_check_timeout_s=min(LONGEST_SILENCE_S, settings.health.timeout_s),
        max_constructor_retry_count=settings.start_attempts,
        ray_actor_options={
            "num_cpus": settings.cpus_per_replica,
            "num_gpus": settings.gpus_per_replica,
            "runtime_env": {"env_vars": environment},
        },
    ).bind(settings, state)
