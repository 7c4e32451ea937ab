"""Images that are sent once and named by their hash from then on: one folder, one file for each, shared by replicas.

It promises that a name is the sha256 of its bytes, that a file is whole or absent, that the folder stays within its
bytes, and that what was used lately stays. Readers take the bytes: what is thrown away later does not hurt them.
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
from unijudge.storage.files import DRAFT_SUFFIX, publishing

NAME = re.compile("[0-9a-f]{64}")
DRAFT_LIVES_S = 600
"""After which a half-written file belongs to nobody any more."""
STORE_FULL_S = 1
"""How long a full store says so without looking again."""
FULL = "no room: everything here was used in the last blobs.min_age_s; raise blobs.max_bytes, or send less at once"
_MAGIC = re.compile(rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|RIFF....WEBP", re.DOTALL)


class BlobStore:
    """A bounded folder of images. Any number of threads and processes may share it."""

    def __init__(self, folder: Path, *, max_bytes: int, young_s: float = 60):
        """Makes the folder.

        Args:
            folder: The same one for all replicas.
            max_bytes: Of the folder. Each replica looks after every sixteenth of it, so that much may come on top.
            young_s: What was stored or read in the last so many seconds stays.
        """
        self._folder = folder
        self._max_bytes = max_bytes
        self._young_s = young_s
        self._since_look = max_bytes  # look at the folder before the first write: it may be full already
        self._full_until = float("-inf")
        self._writing = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)

    def put(self, name: str, data: bytes) -> bool:
        """Stores an image; false if it was there.

        Args:
            name: Its sha256 in lower-case hex.
            data: A JPEG, PNG or WebP file.

        Raises:
            BadImage: The bytes have another hash, or are of another format.
            DataError: There is no room, and everything in the folder was used lately; or the disk refused.
        """
        found = hashlib.sha256(data).hexdigest()
        if found != name:
            raise BadImage(f"these {len(data)} bytes have the sha256 {found}, not {name}: damaged on the way?")
        if not _MAGIC.match(data):
            raise BadImage("not a JPEG, PNG or WebP image")
        if len(data) > self._max_bytes:
            raise DataError(f"{len(data)} bytes; this service keeps {self._max_bytes} in all: raise blobs.max_bytes")
        path = self._folder / name
        if _touch(path):
            return False
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
        """The bytes of an image, which count as used now; None if they are not there."""
        path = self._folder / name
        if not NAME.fullmatch(name) or not _touch(path):
            return None
        try:
            data = path.read_bytes()
            if hashlib.sha256(data).hexdigest() == name:
                return data
            path.unlink(missing_ok=True)  # a disk or a person changed it
        except OSError:  # gone, or a disk that does not answer: the client has the image
            pass
        return None

    def _make_room(self, needed: int) -> None:
        """Removes what was not used for longest, down to seven eighths, if the folder would exceed its bytes."""
        try:
            files = sorted(self._files())
        except OSError as error:
            raise DataError(
                f"{self._folder}: cannot be read ({error.strerror}); is it there for all replicas?"
            ) from error
        used = sum(size for _, size, _ in files)
        if used + needed <= self._max_bytes:
            return
        oldest_young = time.time() - self._young_s
        for used_at, size, path in files:
            if used_at > oldest_young or used + needed <= self._max_bytes * 7 // 8:
                break
            try:
                if path.stat().st_mtime > oldest_young:  # somebody has asked for it meanwhile
                    continue
                path.unlink()
            except FileNotFoundError:  # another replica was faster
                pass
            except OSError:
                continue
            used -= size
        if used + needed > self._max_bytes:
            self._full_until = time.monotonic() + STORE_FULL_S
            raise DataError(FULL)

    def _files(self) -> Iterator[tuple[float, int, Path]]:
        """(when it was used, size, path) of what is ours here; a draft that somebody may be writing counts as young."""
        with os.scandir(self._folder) as entries:
            for entry in entries:
                is_draft = entry.name.endswith(DRAFT_SUFFIX)
                if is_draft or NAME.fullmatch(entry.name):
                    with contextlib.suppress(FileNotFoundError):  # another replica makes room too
                        found = entry.stat()
                        yield found.st_mtime + DRAFT_LIVES_S * is_draft, found.st_size, Path(entry.path)


def _touch(path: Path) -> bool:
    """Marks a file as used now; false if there is none that we may use."""
    try:
        os.utime(path)
    except OSError:
        return False
    return True
