"""Submits and watches scoring jobs on a Ray cluster through Ray Jobs. A job does not need the submitting machine.

A cancelled job has `stop_wait_s` seconds to finish its running shards.
"""

import contextlib
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from miner.settings import ScoreSettings
from unijudge.errors import SettingsError
from unijudge.formats.scores import ScoreManifest
from unijudge.provenance import without_passwords
from unijudge.settings import overrides_of
from unijudge.shown import shown_name
from unijudge.storage.access_errors import LONGEST_REASON
from unijudge.storage.files import read_json
from unijudge.storage.locations import WHOLE, locate
from unijudge.storage.stores import exists

LOOK_EVERY_S = 1.0
"""Seconds between an interruption of a log and the next attempt to follow it."""

Client = Any
"""ray.job_submission.JobSubmissionClient."""


@contextmanager
def cluster(address: str) -> Iterator[Client]:
    """Yields the job client of a cluster.

    Args:
        address: The address of the cluster's dashboard, such as http://127.0.0.1:8265.

    Raises:
        SettingsError: The dashboard does not answer or rejects the token, or the job does not exist.
    """
    from ray.exceptions import RayError
    from ray.job_submission import JobSubmissionClient

    try:
        yield JobSubmissionClient(address)
    except (OSError, RuntimeError, ValueError, RayError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1].rstrip(".")[
            :LONGEST_REASON
        ]
        raise SettingsError(
            f"{shown_name(address)}: {reason}. Check that this is the address of the cluster's dashboard, that the "
            "job id is right, and that RAY_AUTH_MODE and the token match those of the cluster"
        ) from error


def submit(client: Client, settings: ScoreSettings, stop_wait_s: int) -> str:
    """Starts a job, and returns its id. The cluster's machines must see the folders under the same paths.

    Raises:
        SettingsError: A URL contains a user name or a password, which everyone who can list the cluster's jobs would
            see.
    """
    for override in overrides_of(settings, context=WHOLE):
        safe = without_passwords(override)
        if safe != override:
            raise SettingsError(
                f"{safe}: this URL contains a user name or a password, which would be visible in the cluster's list "
                "of jobs. Remove them from the URL, and set the credentials on the cluster's machines"
            )
    settings = settings.absolute().model_copy(update={"engine": "ray", "ray_address": "auto"})
    words = ["unijudge", "mine", "score"]
    for override in overrides_of(settings):
        words += [override]
    job: str = client.submit_job(
        entrypoint=shlex.join(words),
        metadata={"out": str(settings.out)},
        runtime_env={"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(stop_wait_s)}},
    )
    return job


def status(client: Client, job: str) -> str:
    """Returns one line with the state of a job and the number of its shards that this machine sees.

    Raises:
        SettingsError: The job is no scoring job.
    """
    found = client.get_job_info(job)
    if not _is_ours(found):
        raise SettingsError(
            f"{job}: is not a scoring job of `mine submit`. See `unijudge mine jobs`"
        )
    return _line(found)


def jobs(client: Client) -> list[str]:
    """Returns one line for each scoring job of the cluster, newest first."""
    ours = filter(_is_ours, client.list_jobs())
    return [_line(job) for job in sorted(ours, key=lambda job: -(job.start_time or 0))]


def follow(client: Client, job: str, tell: Callable[[str], None]) -> str:
    """Follows a job's log until the job ends. An interrupted log is resumed.

    Args:
        client: The job client of the cluster.
        job: The id of the job.
        tell: Called with each new part of the log.

    Returns:
        The final state of the job: SUCCEEDED, FAILED or STOPPED.
    """
    import asyncio

    from aiohttp import ClientError

    told = 0

    async def tail() -> None:
        nonlocal told
        seen = 0
        async for text in client.tail_job_logs(job):  # always starts at the beginning of the log
            new = text[max(0, told - seen) :]
            seen += len(text)
            if new:
                told += len(new)
                tell(new)

    while True:
        # If the cluster is lost, the next call raises.
        with contextlib.suppress(ClientError, OSError):
            asyncio.run(tail())
        state = client.get_job_status(job)
        if state.is_terminal():
            return str(state.value)
        time.sleep(LOOK_EVERY_S)


def _is_ours(job: Any) -> bool:
    return bool(job.submission_id) and "out" in (job.metadata or {})


def _line(job: Any) -> str:
    out = job.metadata["out"]
    written = "no plan yet, or not visible from this machine"
    path = locate(out) / "manifest.json"
    if exists(path):
        plan = read_json(path, ScoreManifest)
        written = (
            f"{len(plan.parts) - len(plan.parts.missing(locate(out)))} of {len(plan.parts)} shards"
        )
    return f"{job.submission_id}  {job.status.value:<9}  {written}  {out}"
