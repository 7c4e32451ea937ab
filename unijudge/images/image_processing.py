"""Bytes of a file → the picture for every engine: decoded safely, scaled to the pixel budget, the same everywhere.

Each engine and processor scales pictures in a different way, and some ignore the budget. So pictures are scaled here.
The conversion of a scaled picture into tokens depends on the family of models (`families`).
"""

import hashlib
import math
import threading
from dataclasses import dataclass
from operator import attrgetter
from typing import Literal, Protocol

from cachetools import LRUCache, cachedmethod
from PIL import Image

from unijudge.errors import SettingsError
from unijudge.images.decoding import MAX_ASPECT_RATIO, open_image

Resize = Literal["keep", "square"]


@dataclass(frozen=True)
class PixelBudget:
    """The size to which pictures are scaled: within two bounds with the aspect ratio kept, or all to one square."""

    min_pixels: int
    max_pixels: int
    resize: Resize = "keep"

    def __post_init__(self) -> None:
        """Refuses bounds that no size can satisfy.

        Raises:
            SettingsError: `min_pixels` is larger than `max_pixels`.
        """
        if self.resize == "keep" and self.min_pixels > self.max_pixels:
            raise SettingsError(
                f"model.min_pixels: {self.min_pixels} is more than model.max_pixels = {self.max_pixels}, so no picture "
                "fits. Lower one or raise the other"
            )

    def fit(self, height: int, width: int, side: int) -> tuple[int, int]:
        """Returns the (height, width) to which a picture is scaled, as multiples of `side`, an image token's side.

        `keep` repeats `fitted` until the size no longer changes, so that a scaled picture is never scaled again. No
        size exceeds `max_pixels`, except a picture of a single token. A size may stay below `min_pixels` if the next
        larger size would exceed `max_pixels`. `square` is the largest square within `max_pixels` for every picture, as
        the reference code scales its pictures before any processor.

        Example:
            >>> PixelBudget(3136, 451584).fit(500, 900, 28), PixelBudget(3136, 451584, "square").fit(500, 900, 28)
            ((504, 896), (672, 672))
            >>> PixelBudget(3136, 3136).fit(100, 110, 28), PixelBudget(3136, 3136).fit(28, 56, 28)
            ((28, 56), (28, 56))
        """
        if self.resize == "square":
            edge = max(math.isqrt(self.max_pixels) // side, 1) * side
            return edge, edge
        before, size = (0, 0), (height, width)
        while size != before:
            before, size = size, self._nearer(*size, side)
        return size

    def _nearer(self, height: int, width: int, side: int) -> tuple[int, int]:
        """Applies `fitted` once, and then keeps `max_pixels` where possible, and the largest allowed aspect ratio.

        The repetition in `fit` ends: a size above `max_pixels` shrinks with each step, and a size below `min_pixels`
        never shrinks.
        """
        tall, wide = fitted(height, width, side, self.min_pixels, self.max_pixels)
        if tall * wide > self.max_pixels:
            tall, wide = _largest(height, width, side, self.max_pixels)
        longest = MAX_ASPECT_RATIO * min(tall, wide)
        tall = min(tall, longest)
        wide = min(wide, longest)
        return tall, wide


@dataclass(frozen=True)
class Picture:
    """A picture as the model sees it."""

    image: Image.Image
    """The RGB image for an engine."""
    token_ids: tuple[int, ...]
    """The picture's tokens in a prompt."""
    grid: tuple[int, int] | None = None
    """(height, width) in image tokens, if the family gives these tokens positions in a plane."""

    @property
    def nbytes(self) -> int:
        """Returns the memory of the picture, in bytes."""
        return 3 * self.image.width * self.image.height


class PictureFormat(Protocol):
    """The part of a family of models that the reader needs."""

    def fit(self, height: int, width: int) -> tuple[int, int]:
        """Returns the (height, width) to which a picture is scaled."""
        ...

    def picture(self, image: Image.Image) -> Picture:
        """Returns the `Picture` of a scaled image."""
        ...


class PictureReader:
    """A thread-safe reader that decodes and scales pictures.

    It caches recent pictures, so that a query's picture is prepared once.
    """

    def __init__(self, form: PictureFormat, *, max_source_pixels: int, keep_bytes: int = 2**27):
        """Creates a reader with an empty cache.

        Args:
            form: The family of models that gets the pictures.
            max_source_pixels: Pictures with more pixels are not decoded at all.
            keep_bytes: The size of the cache, in bytes of pictures.
        """
        self._form = form
        self._max_source_pixels = max_source_pixels
        self._recent: LRUCache[bytes, Picture] = LRUCache(
            keep_bytes, getsizeof=lambda picture: picture.nbytes
        )
        """Hash of a file → its picture."""
        self._lock = threading.Lock()

    @cachedmethod(
        attrgetter("_recent"),
        key=lambda _, data: hashlib.sha256(data).digest(),
        lock=attrgetter("_lock"),
    )
    def __call__(self, data: bytes) -> Picture:
        """Prepares one picture.

        Raises:
            BadImage: The picture cannot be decoded, or is too large.
        """
        image = open_image(data, self._max_source_pixels)
        height, width = self._form.fit(image.height, image.width)
        return self._form.picture(image.resize((width, height), Image.Resampling.BICUBIC))


def fitted(height: int, width: int, side: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """Returns the nearest size within a pixel budget whose sides are multiples of `side`, with nearly the same ratio.

    Args:
        height: Height of the picture, in pixels.
        width: Width of the picture, in pixels.
        side: Side of an image token, in pixels.
        min_pixels: The smallest height × width.
        max_pixels: The largest height × width. Each side still has at least one token.

    Returns:
        (height, width).

    Source:
        Qwen2-VL (arXiv 2409.12191), naive dynamic resolution; a test compares with transformers' `smart_resize`.

    Example:
        >>> fitted(500, 900, 28, 56 * 56, 112 * 112)
        (56, 140)
    """
    tall = round(height / side) * side
    wide = round(width / side) * side
    if tall * wide > max_pixels:
        return _largest(height, width, side, max_pixels)
    if tall * wide < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        tall = math.ceil(height * grow / side) * side
        wide = math.ceil(width * grow / side) * side
    return tall, wide


def _largest(height: int, width: int, side: int, max_pixels: int) -> tuple[int, int]:
    """Returns the largest size of about this ratio within `max_pixels`, with at least one token on each side."""
    shrink = math.sqrt(height * width / max_pixels)
    tall = math.floor(height / shrink / side)
    wide = math.floor(width / shrink / side)
    return max(1, tall) * side, max(1, wide) * side
