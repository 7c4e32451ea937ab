"""Bytes of a file → the pixels that every engine sees: decoded safely, scaled to the budget, the same everywhere.

Engines and processors scale pictures each in their own way, and some ignore the budget that they are given. So pictures
are scaled here, to a size at which every processor of the Qwen-VL kind leaves them as they are.
"""

import math
import threading
from collections import OrderedDict
from dataclasses import dataclass

from PIL import Image

from unijudge.corpus import open_image


@dataclass(frozen=True)
class Picture:
    """A picture as the model will see it."""

    image: Image.Image
    """RGB, its sides multiples of a token's."""
    tokens: tuple[int, int]
    """(height, width) in image tokens"""

    @property
    def num_tokens(self) -> int:
        """How many image tokens it takes."""
        return self.tokens[0] * self.tokens[1]


class PictureReader:
    """Decodes and scales pictures, keeping the most recent ones: a query's picture is prepared once. For any thread."""

    def __init__(
        self, *, token_side: int, min_pixels: int, max_pixels: int, max_source_pixels: int, keep_bytes: int = 2**27
    ):
        """Sets the budget.

        Args:
            token_side: Width and height of an image token, in pixels: patch size × merge size.
            min_pixels: Smaller pictures are scaled up to this many pixels.
            max_pixels: Larger pictures are scaled down to this many pixels.
            max_source_pixels: Pictures with more pixels are not decoded at all.
            keep_bytes: How many bytes of files and pixels to keep.
        """
        self._token_side = token_side
        self._min_pixels = min_pixels
        self._max_pixels = max_pixels
        self._max_source_pixels = max_source_pixels
        self._room = keep_bytes
        self._recent: OrderedDict[bytes, Picture] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, data: bytes) -> Picture:
        """Prepares one picture.

        Raises:
            BadImage: It cannot be decoded, or is too large.
        """
        with self._lock:
            if data in self._recent:
                self._recent.move_to_end(data)
                return self._recent[data]
        image = open_image(data, self._max_source_pixels)
        side = self._token_side
        height, width = fitted(image.height, image.width, side, self._min_pixels, self._max_pixels)
        picture = Picture(image.resize((width, height), Image.Resampling.BICUBIC), (height // side, width // side))
        with self._lock:
            if data not in self._recent:
                self._recent[data] = picture
                self._room -= len(data) + 3 * width * height
            while self._room < 0 and len(self._recent) > 1:
                file, oldest = self._recent.popitem(last=False)
                self._room += len(file) + 3 * oldest.image.width * oldest.image.height
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
