"""The images of an import: each is opened and checked once, and copied into the corpus folder if necessary.

If all images are plain files under one root, they stay there. Otherwise, or if the images are on a disk and the corpus
in an object store, all images are copied into the corpus folder, named by their content. The copies of a failed import
are kept for the next import.
"""

import hashlib
from pathlib import Path

from miner.importers.building.ledger import Ledger, copied_path
from unijudge.errors import DataError
from unijudge.foreign.cells import Rejected
from unijudge.foreign.pictures import ForeignPicture, Pictures, check_name, inspect_picture
from unijudge.storage.files import file_sha256, publishing
from unijudge.storage.locations import is_local
from unijudge.storage.stores import exists


class ImportedImages:
    """Opens, checks and copies the images of an import."""

    def __init__(
        self, ledger: Ledger, pictures: Pictures, out: Path, *, max_pixels: int, dry_run: bool
    ):
        """Starts without images. With `dry_run`, no images are copied."""
        self._ledger = ledger
        self._pictures = pictures
        self.root = pictures.images
        """The folder or the zip archive at which the names of images begin."""
        self._folder = out / "images"
        self._max_pixels = max_pixels
        self._dry_run = dry_run
        self.repaired = 0
        """Number of copied images that were damaged since an earlier import, and were copied again."""

        # A corpus in an object store cannot name files of a disk.
        has_local_images = pictures.root is not None and is_local(pictures.root)
        ledger.copied = pictures.root is None or (has_local_images and not is_local(out))

    def of(self, image: str | bytes) -> ForeignPicture | Rejected:
        """Returns the image with a name or with some bytes, or the reason why it is rejected. Opens each image once."""
        try:
            if isinstance(image, str):
                check_name(image)
        except Rejected as reason:
            return reason
        key = image if isinstance(image, str) else hashlib.sha256(image).digest()
        picture = self._ledger.picture(key)
        if picture is None:
            picture = self._open(image)
            self._ledger.remember(key, picture)
        return picture

    def _open(self, image: str | bytes) -> ForeignPicture | Rejected:
        try:
            data, path = self._pictures.read(image) if isinstance(image, str) else (image, None)
            picture = inspect_picture(data, path, self._max_pixels)
        except Rejected as reason:
            return reason
        if path is None:
            self._copy(picture, data)
        return picture

    def _copy(self, picture: ForeignPicture, data: bytes) -> None:
        """Copies an image to a path named by its content. An intact copy of an earlier import is kept."""
        self._ledger.copied = True
        if self._dry_run:
            return
        path = self._folder / copied_path(picture.sha256, picture.ending)
        has_copy = exists(path)
        if has_copy and file_sha256(path) == picture.sha256:
            return
        with publishing(path) as draft:
            draft.write_bytes(data)
        self.repaired += has_copy

    def final_root(self) -> Path:
        """Returns the root of all image names of the corpus. If any image was copied, the other images are copied now.

        Raises:
            DataError: An image was changed or removed since it was opened.
        """
        root = self._pictures.root
        if root is not None and not self._ledger.copied:
            return root
        self._copy_plain()
        return self._folder

    def _copy_plain(self) -> None:
        for name, picture in self._ledger.plain_pictures():
            try:
                data, _ = self._pictures.read(name)
            except Rejected as reason:
                raise DataError(
                    f"{name}: was removed during the import ({reason}). Import again"
                ) from reason
            if hashlib.sha256(data).hexdigest() != picture.sha256:
                raise DataError(f"{name}: changed during the import. Import again")
            self._copy(picture, data)
