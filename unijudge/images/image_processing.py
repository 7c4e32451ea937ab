"""Bytes of a file → the picture that every engine is given: decoded safely, scaled to the budget, the same everywhere.

Engines and processors scale pictures each in their own way, and some ignore the budget that they are given. So pictures
are scaled here; what a family of models makes of them is the family's business (`families`).
"""

import math
from dataclasses import dataclass
from typing import Literal, Protocol

from PIL import Image

from unijudge.errors import SettingsError
from unijudge.images.decoding import MAX_ASPECT_RATIO, open_image
from unijudge.images.lru import LruCache

Resize = Literal["keep", "square"]


@dataclass(frozen=True)
class PixelBudget:
    """How large pictures are made: within two bounds, the aspect ratio kept; or all of one size, squashed."""

    min_pixels: int
    max_pixels: int
    resize: Resize = "keep"

    def __post_init__(self) -> None:
        """Refuses bounds that no size meets.

        Raises:
            SettingsError: The smallest size is above the largest.
        """
        if self.resize == "keep" and self.min_pixels > self.max_pixels:
            raise SettingsError(
                f"model.min_pixels: {self.min_pixels} is more than model.max_pixels = {self.max_pixels}, so no picture "
                "fits. Lower one or raise the other"
            )

    def fit(self, height: int, width: int, side: int) -> tuple[int, int]:
        """The (height, width) to which a picture is scaled, multiples of `side`, which is an image token's.

        `keep` is `fitted`, repeated until nothing changes: what was scaled once stays as it is. No size exceeds
        `max_pixels`, but for one token. A size below `min_pixels` remains where the next larger one would exceed
        `max_pixels`. `square` is the largest square within `max_pixels`, whatever the picture's own size, as the
        reference makes its pictures before any processor sees them.

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
        """`fitted`, never above `max_pixels` where it can be avoided, and never longer than pictures may be.

        It ends: a size above `max_pixels` shrinks with each step, and one below `min_pixels` loses no side.
        """
        tall, wide = fitted(height, width, side, self.min_pixels, self.max_pixels)
        if tall * wide > self.max_pixels:
            tall, wide = _largest(height, width, side, self.max_pixels)
        longest = MAX_ASPECT_RATIO * min(tall, wide)
        return min(tall, longest), min(wide, longest)


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
        self._recent = LruCache[Picture](keep_bytes)

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
        return _largest(height, width, side, max_pixels)
    if tall * wide < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        tall = math.ceil(height * grow / side) * side
        wide = math.ceil(width * grow / side) * side
    return tall, wide


def _largest(height: int, width: int, side: int, max_pixels: int) -> tuple[int, int]:
    """The largest size of about this aspect ratio within `max_pixels`, but for one token at least on each side."""
    shrink = math.sqrt(height * width / max_pixels)
    tall = max(side, math.floor(height / shrink / side) * side)
    wide = max(side, math.floor(width / shrink / side) * side)
    return tall, wide
