"""The history of the replicas: which starts failed, and the state of the service that follows."""

import logging

from ray.serve.schema import ApplicationStatus, ApplicationStatusOverview

from judge_service.front.state import ServiceState
from judge_service.replica.replica import DEPLOYMENT
from unijudge.errors import JudgeError

logger = logging.getLogger(__name__)


class Replicas:
    """The history of the replicas, from which the state of the service follows."""

    def __init__(self, number: int, start_attempts: int):
        """Creates an empty history.

        Args:
            number: The number of replicas of the service.
            start_attempts: The number of failed starts after which the service stops.
        """
        self._number = number
        self._start_attempts = start_attempts
        self._was_ready = False
        self._failures: set[str] = set()
        """The messages of failed starts since all replicas last ran."""

    def state(self, application: ApplicationStatusOverview) -> ServiceState:
        """Returns the state of the service, from Ray's state of the application.

        Ray itself would silently restart failing replicas forever.

        Raises:
            JudgeError: All start attempts failed, and either no replica runs or the service was never ready. The
                message has the error of the last attempt.
        """
        deployments = application.deployments
        states: dict[str, int] = (
            deployments[DEPLOYMENT].replica_states if DEPLOYMENT in deployments else {}
        )
        running = states.get("RUNNING", 0)
        if running == self._number and application.status == ApplicationStatus.RUNNING:
            self._was_ready = True
            self._failures.clear()
            return ServiceState(phase="serving", ready=True)

        # A service with a running replica continues, however many starts fail.
        messages = [deployment.message for deployment in deployments.values()]
        self._remember({message for message in messages if "failed to start" in message})
        gave_up = application.status == ApplicationStatus.DEPLOY_FAILED
        all_failed = gave_up or len(self._failures) >= self._start_attempts
        if all_failed and not (running and self._was_ready):
            raise JudgeError(f"the replicas did not start: {reason_of(*messages)}")

        # A client gets the reason while it waits.
        failure = f": {reason_of(*self._failures)}" if self._failures else ""
        reason = f"{running} of {self._number} replicas run{failure}"
        if running and self._was_ready:
            return ServiceState(phase="serving", reason=reason)
        return ServiceState(phase="broken" if self._failures else "starting", reason=reason)

    def _remember(self, failed: set[str]) -> None:
        """Logs new failures. The message of each failed start is different, since it names the replica's process."""
        for message in failed - self._failures:
            logger.warning("a replica did not start: %s", reason_of(message))
        self._failures |= failed


def reason_of(*messages: str) -> str:
    """Returns the error of the replicas from Ray's messages."""
    text = "\n".join(messages)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    ours = [line for line in lines if line.startswith("unijudge.errors.")]
    *_, last = ours or lines or ["no message"]
    return last.removeprefix("unijudge.errors.")
