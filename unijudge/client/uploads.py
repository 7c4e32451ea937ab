"""Images on their way to a judge service, each sent once, so that requests can name them by their hashes."""

import asyncio
import logging
import time

from unijudge.client.http import Connection
from unijudge.errors import InvalidBlob, JudgeError, JudgeRefused

AT_ONCE = 8
RETRY_FOR_S = 10
REMEMBERED = 4096
INSIDE_S = 30
"""How long no image is named after one could not be kept, whatever the reason: it is never a reason to lose a pair."""

logger = logging.getLogger(__name__)


class Uploads:
    """Those of one client."""

    def __init__(self, connection: Connection):
        """They go through this connection."""
        self._connection = connection
        self._in_work: dict[str, asyncio.Task[bool]] = {}
        self._stored_at: dict[str, float] = {}
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._inside_until = float("-inf")

    @property
    def work(self) -> bool:
        """Whether images may be named at present; otherwise they travel inside the requests."""
        return time.monotonic() > self._inside_until

    async def send(self, name: str, image: bytes, asked_at: float) -> bool:
        """Sends an image, unless another request does so now or has since `asked_at`; false if it is not kept.

        Args:
            name: Its hash.
            image: Its bytes.
            asked_at: When its absence was last possible, on the clock of `time.monotonic`.
        """
        if self._stored_at.get(name, float("-inf")) >= asked_at:
            return True
        if name not in self._in_work:
            task = self._in_work[name] = asyncio.create_task(self._put(name, image))
            task.add_done_callback(lambda _: self._in_work.pop(name, None))
        return await asyncio.shield(self._in_work[name])  # others may wait for the image when this request is cancelled

    def cancel(self) -> None:
        """Gives up what is on its way."""
        for task in list(self._in_work.values()):
            task.cancel()

    async def _put(self, name: str, image: bytes) -> bool:
        async with self._slots:
            if not self.work:  # another one failed while this one waited
                return False
            try:
                await self._connection.put(f"/v1/blobs/{name}", image, retry_for_s=RETRY_FOR_S)
            except (
                InvalidBlob,
                JudgeRefused,
            ):  # this image; it travels inside the request and gets its own error there
                return False
            except JudgeError as error:
                if self.work:  # several may fail together
                    logger.warning("images travel inside the requests for %d s: %s", INSIDE_S, error)
                self._inside_until = time.monotonic() + INSIDE_S
                return False
        while len(self._stored_at) >= REMEMBERED:
            del self._stored_at[next(iter(self._stored_at))]
        self._stored_at[name] = time.monotonic()
        return True
