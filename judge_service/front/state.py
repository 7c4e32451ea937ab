"""What the process that started the service knows, for everyone on its machine: a small file.

The front in Ray's proxy and the replicas read it; so a caller learns in one second why nobody answers, and what waits
is refused as soon as the service is being stopped.
"""

import contextlib
import time
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from unijudge.errors import UnijudgeError
from unijudge.storage.files import publish_json, read_json

READ_EVERY_S = 0.2


class ServiceState(BaseModel):
    """Whether the service answers."""

    model_config = ConfigDict(frozen=True)

    phase: Literal["starting", "serving", "broken", "stopping"]
    """`broken`: no replica runs."""
    ready: bool = False
    """Every replica is well."""
    reason: str = ""
    """Why it is not ready."""

    def write(self, path: Path) -> None:
        """Replaces the file."""
        publish_json(path, self)


class StateFile:
    """The state, read again a few times a second."""

    def __init__(self, path: Path):
        self._path = path
        self._state = ServiceState(phase="starting", reason="the service starts")
        self._read_at = float("-inf")

    @property
    def in_work(self) -> Path:
        """Where replicas note what they work on (`front.in_work`)."""
        return self._path.parent / "in-work"

    def read(self) -> ServiceState:
        """The state as it was a moment ago; the last one that was readable where the file is gone."""
        now = time.monotonic()
        if now - self._read_at >= READ_EVERY_S:
            self._read_at = now
            with contextlib.suppress(OSError, UnijudgeError):  # removed while the service stops
                self._state = read_json(self._path, ServiceState)
        return self._state
