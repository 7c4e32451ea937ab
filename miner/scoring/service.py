"""Opens the client of a scoring job's judge service."""

from miner.settings import ScoreSettings
from unijudge.client.client import JudgeClient
from unijudge.client.concurrency import FIRST_IN_FLIGHT
from unijudge.client.keys import read_key


def open_client(settings: ScoreSettings, at_once: int | None = None) -> JudgeClient:
    """Returns the client of a job's service, not yet connected. It adapts the number of requests to the service.

    Args:
        settings: The job.
        at_once: The number of requests in flight from the first request on, unless the service rejects them. This lets
            a probe measure the rate that the job will reach.
    """
    return JudgeClient(
        settings.service,
        key=read_key(settings.key_file),
        request_timeout_s=settings.request_timeout_s,
        retry_for_s=settings.retry_for_s,
        max_in_flight=at_once or settings.max_in_flight,
        first=at_once or FIRST_IN_FLIGHT,
        explain=True,
    )
