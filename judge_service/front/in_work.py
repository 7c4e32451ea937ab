"""Notes of the requests that a replica works on, for the gate in Ray's proxy.

A running request may be the cause of its replica's death. The gate gives each request a name. While a replica works on
the request, the service's folder has an empty file with this name. A dead replica leaves its files. So the gate can
distinguish running requests from requests that only waited.
"""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

HEADER = "judge-request"
"""The header with the name of a request, from the gate to a replica."""
_NAME = re.compile("[0-9a-f]{32}")


class InWork:
    """The folder of notes, shared by the gate and the replicas of a machine. A full disk stops no request."""

    def __init__(self, folder: Path):
        self._folder = folder

    @contextlib.contextmanager
    def noted(self, name: str | None) -> Iterator[None]:
        """Creates the file of a request, and removes the file at the end of the block.

        Args:
            name: The name of the request. Without a valid name, no file is created.
        """
        if name is None or not _NAME.fullmatch(name):
            yield
            return
        note = self._folder / name
        with contextlib.suppress(OSError):
            self._folder.mkdir(exist_ok=True)
            note.touch()
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                note.unlink(missing_ok=True)

    def was(self, name: str) -> bool:
        """Whether a dead replica worked on a request when it died. Removes the file of the request."""
        try:
            (self._folder / name).unlink()
        except OSError:
            return False
        return True
