"""The judge service of a scoring job."""

from miner.settings import ScoreSettings
from unijudge.client.client import JudgeClient
from unijudge.client.concurrency import FIRST_IN_FLIGHT
from unijudge.client.keys import read_key


def open_client(settings: ScoreSettings, at_once: int | None = None) -> JudgeClient:
    """The service of a job, not yet connected. How many requests are in flight follows what the service can do.

    Args:
        settings: The job.
        at_once: So many are from the first one on, unless the service refuses them: to measure what the job will have.
    """
    return JudgeClient(
        settings.service,
        key=read_key(settings.key_file),
        request_timeout_s=settings.request_timeout_s,
        retry_for_s=settings.retry_for_s,
        max_in_flight=at_once or settings.max_in_flight,
        first=at_once or FIRST_IN_FLIGHT,
    )
