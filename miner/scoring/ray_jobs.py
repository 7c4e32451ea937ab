"""Scoring jobs on a Ray cluster that goes on without the machine that submitted them, through Ray Jobs.

A cancelled job finishes its shards in work before it ends, for as long as `stop_wait_s` of its submission allows.
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
"""How long after a log broke off it is followed on."""

Client = Any
"""ray.job_submission.JobSubmissionClient."""


@contextmanager
def cluster(address: str) -> Iterator[Client]:
    """The job client of a cluster.

    Args:
        address: Of its dashboard, as in http://127.0.0.1:8265.

    Raises:
        SettingsError: Nobody answers there, we are not let in, or there is no such job.
    """
    from ray.exceptions import RayError
    from ray.job_submission import JobSubmissionClient

    try:
        yield JobSubmissionClient(address)
    except (OSError, RuntimeError, ValueError, RayError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1].rstrip(".")[:LONGEST_REASON]
        raise SettingsError(
            f"{shown_name(address)}: {reason}. Is this the address of the cluster's dashboard, is the job's id right, "
            "and are RAY_AUTH_MODE and the token here those of the cluster?"
        ) from error


def submit(client: Client, settings: ScoreSettings, stop_wait_s: int) -> str:
    """Starts a job, and returns its id; the cluster's machines must see the folders under the same paths.

    Raises:
        SettingsError: A URL holds a user or a password: everybody who may list the cluster's jobs would see it.
    """
    for override in overrides_of(settings, context=WHOLE):
        safe = without_passwords(override)
        if safe != override:
            raise SettingsError(
                f"{safe}: this URL holds a user or a password, which would stand in the cluster's list of jobs; "
                "give it without, and the credentials to the cluster's machines"
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
    """One line: the state of a job, and how many of its shards are written, where this machine sees them.

    Raises:
        SettingsError: It is no scoring job.
    """
    found = client.get_job_info(job)
    if not _is_ours(found):
        raise SettingsError(f"{job}: is no scoring job of `mine submit`; see `unijudge mine jobs`")
    return _line(found)


def jobs(client: Client) -> list[str]:
    """One line for each scoring job of the cluster, newest first."""
    ours = filter(_is_ours, client.list_jobs())
    return [_line(job) for job in sorted(ours, key=lambda job: -(job.start_time or 0))]


def follow(client: Client, job: str, tell: Callable[[str], None]) -> str:
    """Tells a job's log as it grows, until the job ends; a log that breaks off is followed on.

    Returns:
        Its state then: SUCCEEDED, FAILED or STOPPED.
    """
    import asyncio

    from aiohttp import ClientError

    told = 0

    async def tail() -> None:
        nonlocal told
        seen = 0
        async for text in client.tail_job_logs(job):  # each time from its beginning
            new = text[max(0, told - seen) :]
            seen += len(text)
            if new:
                told += len(new)
                tell(new)

    while True:
        with contextlib.suppress(ClientError, OSError):  # whether the cluster is still there, its answer below says
            asyncio.run(tail())
        state = client.get_job_status(job)
        if state.is_terminal():
            return str(state.value)
        time.sleep(LOOK_EVERY_S)


def _is_ours(job: Any) -> bool:
    return bool(job.submission_id) and "out" in (job.metadata or {})


def _line(job: Any) -> str:
    out = job.metadata["out"]
    written = "no plan yet, or not seen from here"
    path = locate(out) / "manifest.json"
    if exists(path):
        plan = read_json(path, ScoreManifest)
        written = f"{len(plan.parts) - len(plan.parts.missing(locate(out)))} of {len(plan.parts)} shards"
    return f"{job.submission_id}  {job.status.value:<9}  {written}  {out}"
