"""Uploads of images to a judge service. Each image is sent once, and then requests name it by its hash."""

import asyncio
import logging
import time

from unijudge.client.http import Connection
from unijudge.errors import InvalidBlob, JudgeError, JudgeRefused

UPLOADS_AT_ONCE = 8
RETRY_FOR_S = 10
REMEMBERED = 4096
INSIDE_S = 30
"""Seconds without uploads after a failed upload. Images are sent inside requests then, so no pair is lost."""

logger = logging.getLogger(__name__)


class Uploads:
    """The uploads of a client."""

    def __init__(self, connection: Connection):
        """Takes the connection for the uploads."""
        self._connection = connection
        self._in_work: dict[str, asyncio.Task[bool]] = {}
        self._stored_at: dict[str, float] = {}
        self._slots = asyncio.Semaphore(UPLOADS_AT_ONCE)
        self._inside_until = float("-inf")

    @property
    def work(self) -> bool:
        """Whether images may be named by hash now. If not, images are sent inside the requests."""
        return time.monotonic() > self._inside_until

    async def send(self, name: str, image: bytes, asked_at: float) -> bool:
        """Uploads an image, unless another request is uploading it, or has uploaded it since `asked_at`.

        Args:
            name: The hash of the image.
            image: The bytes of the image.
            asked_at: The last time when the service may have lacked the image, on the clock of `time.monotonic`.

        Returns:
            Whether the service keeps the image.
        """
        if self._stored_at.get(name, float("-inf")) >= asked_at:
            return True
        if name not in self._in_work:
            task = self._in_work[name] = asyncio.create_task(self._put(name, image))
            task.add_done_callback(lambda _: self._in_work.pop(name, None))
        # Others may wait for the image when this request is cancelled.
        return await asyncio.shield(self._in_work[name])

    def cancel(self) -> None:
        """Cancels all uploads in progress."""
        for task in list(self._in_work.values()):
            task.cancel()

    async def _put(self, name: str, image: bytes) -> bool:
        async with self._slots:
            if not self.work:  # another upload failed while this upload waited
                return False
            try:
                await self._connection.put(f"/v1/blobs/{name}", image, retry_for_s=RETRY_FOR_S)
            except (InvalidBlob, JudgeRefused):
                # The image is at fault: it is sent inside the request, where it gets an error.
                return False
            except JudgeError as error:
                if self.work:  # several uploads may fail together, but the warning is logged once
                    logger.warning(
                        "images are sent inside the requests for %d s: %s", INSIDE_S, error
                    )
                self._inside_until = time.monotonic() + INSIDE_S
                return False
        while len(self._stored_at) >= REMEMBERED:
            del self._stored_at[next(iter(self._stored_at))]
        self._stored_at[name] = time.monotonic()
        return True
