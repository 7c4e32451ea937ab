"""The state of the service, in a small file. The process that started the service writes the file.

The gate in Ray's proxy and the replicas read the file. So a client learns within a second why no replica answers, and
waiting requests are rejected as soon as the service begins to stop.
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
    """The state of the service."""

    model_config = ConfigDict(frozen=True)

    phase: Literal["starting", "serving", "broken", "stopping"]
    """The phase of the service. `broken`: no replica runs."""
    ready: bool = False
    """Whether every replica works."""
    reason: str = ""
    """The reason why the service is not ready."""

    def write(self, path: Path) -> None:
        """Replaces the file."""
        publish_json(path, self)


class StateFile:
    """A reader of the state. The file is read at most once in READ_EVERY_S."""

    def __init__(self, path: Path):
        self._path = path
        self._state = ServiceState(phase="starting", reason="the service starts")
        self._read_at = float("-inf")

    @property
    def in_work(self) -> Path:
        """The folder in which replicas note the running requests (`front.in_work`)."""
        return self._path.parent / "in-work"

    def read(self) -> ServiceState:
        """Returns the recent state. If the file is missing, returns the last known state."""
        now = time.monotonic()
        if now - self._read_at >= READ_EVERY_S:
            self._read_at = now
            # The file is removed when the service ends.
            with contextlib.suppress(OSError, UnijudgeError):
                self._state = read_json(self._path, ServiceState)
        return self._state
