"""The store of uploaded images. Clients upload an image once, and then name the image by its hash.

The store is a folder that all replicas share, with one file for each image. The store promises:

- The name of a file is the SHA-256 of its bytes.
- A file is complete or absent.
- The folder stays within its size limit.
- Recently used images are not removed.

Readers load the bytes of an image, so a later removal does not affect them.
"""

import contextlib
import hashlib
import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from unijudge.errors import BadImage, DataError
from unijudge.images.file_kind import image_kind
from unijudge.storage.files import DRAFT_SUFFIX, publishing

NAME = re.compile("[0-9a-f]{64}")
DRAFT_LIVES_S = 600
"""Seconds after which an incomplete file counts as abandoned."""
STORE_FULL_S = 1
"""Seconds during which a full store rejects images without a new check."""
FULL = (
    "the store is full: all of its images were used in the last blobs.min_age_s. Raise blobs.max_bytes, or send fewer "
    "images at the same time"
)


class BlobStore:
    """A folder of images with a size limit. Any number of threads and processes can share the folder."""

    def __init__(self, folder: Path, *, max_bytes: int, young_s: float = 60):
        """Creates the folder.

        Args:
            folder: The folder that all replicas share.
            max_bytes: The size limit of the folder. Each replica checks the size after each sixteenth of the limit, and
                can exceed the limit by this amount.
            young_s: Seconds during which an image is kept after it was stored or read.
        """
        self._folder = folder
        self._max_bytes = max_bytes
        self._young_s = young_s
        self._since_look = (
            max_bytes  # the folder may already be full, so the first write checks its size
        )
        self._full_until = float("-inf")
        self._writing = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)

    def put(self, name: str, data: bytes) -> bool:
        """Stores an image. Returns false if the image was already stored.

        Args:
            name: The SHA-256 of the image, in lower-case hex.
            data: A JPEG, PNG or WebP file.

        Raises:
            BadImage: The bytes have another hash, or another format.
            DataError: The store is full and all of its images were used recently, or the disk failed.
        """
        # The image must be what its name promises.
        digest = hashlib.sha256(data).hexdigest()
        if digest != name:
            raise BadImage(
                f"the {len(data)} bytes have the SHA-256 {digest}, not {name}. Send the image again"
            )
        if image_kind(data) is None:
            raise BadImage("not a JPEG, PNG or WebP image")
        if len(data) > self._max_bytes:
            raise DataError(
                f"the image has {len(data)} bytes: this service keeps {self._max_bytes} in total. Raise blobs.max_bytes"
            )

        path = self._folder / name
        if _touch(path):
            return False

        # The size of the folder is only checked from time to time, since a check reads the whole folder.
        with self._writing:
            if time.monotonic() < self._full_until:
                raise DataError(FULL)
            if self._since_look + len(data) > self._max_bytes // 16:
                self._make_room(len(data))
                self._since_look = 0
            with publishing(path, rivals=True) as draft:
                draft.write_bytes(data)
            self._since_look += len(data)
        return True

    def get(self, name: str) -> bytes | None:
        """Returns the bytes of an image, and marks the image as used now. None if the image is not stored."""
        path = self._folder / name
        if not NAME.fullmatch(name) or not _touch(path):
            return None
        try:
            data = path.read_bytes()
            if hashlib.sha256(data).hexdigest() == name:
                return data
            path.unlink(missing_ok=True)  # the file is damaged
        except OSError:
            # The file is missing or the disk failed, but the client still has the image.
            pass
        return None

    def _make_room(self, needed: int) -> None:
        """If the folder would exceed its limit, removes the least recently used images, down to seven eighths."""
        try:
            files = sorted(self._files())
        except OSError as error:
            raise DataError(
                f"{self._folder}: cannot be read ({error.strerror}). Check that all replicas can use this folder"
            ) from error
        used = sum(size for _, size, _ in files)
        if used + needed <= self._max_bytes:
            return

        # The files are sorted by their last use.
        oldest_young = time.time() - self._young_s
        for used_at, size, path in files:
            if used_at > oldest_young or used + needed <= self._max_bytes * 7 // 8:
                break
            try:
                # A request has used the image since the listing.
                if path.stat().st_mtime > oldest_young:
                    continue
                path.unlink()
            except FileNotFoundError:  # another replica removed the image
                pass
            except OSError:
                continue
            used -= size

        # The next images are rejected without reading the folder again.
        if used + needed > self._max_bytes:
            self._full_until = time.monotonic() + STORE_FULL_S
            raise DataError(FULL)

    def _files(self) -> Iterator[tuple[float, int, Path]]:
        """Yields (time of last use, size, path) of the store's files. Incomplete files count as recently used."""
        with os.scandir(self._folder) as entries:
            for entry in entries:
                is_draft = entry.name.endswith(DRAFT_SUFFIX)
                if is_draft or NAME.fullmatch(entry.name):
                    # Another replica can remove files too.
                    with contextlib.suppress(FileNotFoundError):
                        status = entry.stat()
                        yield (
                            status.st_mtime + DRAFT_LIVES_S * is_draft,
                            status.st_size,
                            Path(entry.path),
                        )


def _touch(path: Path) -> bool:
    """Marks a file as used now. Returns false if the file is missing or not ours."""
    try:
        os.utime(path)
    except OSError:
        return False
    return True
