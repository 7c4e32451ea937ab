"""Bytes of a file → the picture that every engine is given: decoded safely, scaled to the budget, the same everywhere.

Engines and processors scale pictures each in their own way, and some ignore the budget that they are given. So pictures
are scaled here; what a family of models makes of them is the family's business (`families`).
"""

import math
from dataclasses import dataclass
from typing import Protocol

from PIL import Image

from unijudge.images import open_image
from unijudge.recent import Recent


@dataclass(frozen=True)
class Picture:
    """A picture as the model will see it."""

    image: Image.Image
    """RGB, as engines are given it."""
    token_ids: tuple[int, ...]
    """What stands for it in a prompt."""
    grid: tuple[int, int] | None = None
    """(height, width) in image tokens, where the family gives tokens positions in a plane."""

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        return 3 * self.image.width * self.image.height


class PictureFormat(Protocol):
    """What the reader asks of a family of models."""

    def fit(self, height: int, width: int) -> tuple[int, int]:
        """The (height, width) to which a picture is scaled."""
        ...

    def picture(self, image: Image.Image) -> Picture:
        """What a scaled picture becomes."""
        ...


class PictureReader:
    """Decodes and scales pictures, keeping the most recent ones: a query's picture is prepared once. For any thread."""

    def __init__(self, form: PictureFormat, *, max_source_pixels: int, keep_bytes: int = 2**27):
        """Opens nothing yet.

        Args:
            form: The family of models that they are for.
            max_source_pixels: Pictures with more pixels are not decoded at all.
            keep_bytes: How many bytes of files and pictures to keep.
        """
        self._form = form
        self._max_source_pixels = max_source_pixels
        self._recent = Recent[Picture](keep_bytes)

    def __call__(self, data: bytes) -> Picture:
        """Prepares one picture.

        Raises:
            BadImage: It cannot be decoded, or is too large.
        """
        kept = self._recent.get(data)
        if kept is not None:
            return kept
        image = open_image(data, self._max_source_pixels)
        height, width = self._form.fit(image.height, image.width)
        picture = self._form.picture(image.resize((width, height), Image.Resampling.BICUBIC))
        self._recent.put(data, picture, len(data) + picture.nbytes)
        return picture


def fitted(height: int, width: int, side: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """The nearest size within a budget of pixels whose sides are multiples of `side`, the aspect ratio nearly kept.

    Args:
        height: In pixels.
        width: In pixels.
        side: Of an image token, in pixels.
        min_pixels: Smallest height × width.
        max_pixels: Largest height × width, but for one token at least on each side.

    Returns:
        (height, width).

    Source:
        Qwen2-VL (arXiv 2409.12191), naive dynamic resolution; a test compares with transformers' `smart_resize`.

    Example:
        >>> fitted(500, 900, 28, 56 * 56, 112 * 112)
        (56, 140)
    """
    tall, wide = round(height / side) * side, round(width / side) * side
    if tall * wide > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        tall = max(side, math.floor(height / shrink / side) * side)
        wide = max(side, math.floor(width / shrink / side) * side)
    elif tall * wide < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        tall = math.ceil(height * grow / side) * side
        wide = math.ceil(width * grow / side) * side
    return tall, wide
