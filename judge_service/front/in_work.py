"""Which requests a replica works on, for the gate in Ray's proxy: who was in work when the replica died may be why.

The gate gives each request a name. While a replica works on the request, a file of this name stands in a folder of the
service, empty. The file of a replica that has died is left, and tells the gate that the request was not only waiting.
"""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

HEADER = "judge-request"
"""By which the gate tells a replica the name."""
_NAME = re.compile("[0-9a-f]{32}")


class InWork:
    """The folder, as the gate and the replicas of one machine see it. A disk that is full ends nothing."""

    def __init__(self, folder: Path):
        self._folder = folder

    @contextlib.contextmanager
    def noted(self, name: str | None) -> Iterator[None]:
        """Keeps the file of a request while the block runs.

        Args:
            name: Of the request; without a name it is not noted.
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
        """Whether a replica still worked on it when it died. The file is removed."""
        try:
            (self._folder / name).unlink()
        except OSError:
            return False
        return True
