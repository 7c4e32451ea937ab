"""Pictures are decoded in one place, safely: the format and the size are checked before any pixel is."""

import io
import stat
import threading
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from unijudge.errors import BadImage
from unijudge.locations import is_local

FORMATS = ("JPEG", "PNG", "WEBP")
MAX_PIXELS = 50_000_000
MAX_ASPECT_RATIO = 200
MAX_BYTES = 200 * 2**20
"""Of one encoded picture: what is larger is never read."""
LARGEST_HEADER = 2**31
"""Pixels that a header may promise, for who asks for their number alone."""
_LIMIT = threading.Lock()
"""Pillow's limit is one for the whole process."""

# Pillow warns of strange metadata and of large pictures. For one call this cannot be switched off: Python's filters
# belong to all threads, and one that leaves may switch them off for ever.
warnings.filterwarnings("ignore", module=r"PIL\.")


def open_image(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decodes one picture, safely: the format and the size are checked before any pixel is.

    Args:
        data: The bytes of a JPEG, PNG or WebP file.
        max_pixels: Largest width × height.

    Returns:
        An RGB image, turned as its EXIF orientation says; transparent parts are white.

    Raises:
        BadImage: Another format, animated, too large, longer than 200 times its width, or truncated.
    """
    try:
        _lift_bomb_limit(max_pixels)
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise BadImage(f"image of {width}×{height} pixels: more than {max_pixels}; scale it down")
            if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
                raise BadImage(f"image of {width}×{height} pixels: one side is over {MAX_ASPECT_RATIO} times the other")
            if getattr(image, "n_frames", 1) > 1:
                raise BadImage("animated image: only still pictures are judged; save one frame")
            image.load()
            return _to_rgb(ImageOps.exif_transpose(image))
    except BadImage:
        raise
    except Image.DecompressionBombError as error:
        raise BadImage(f"image of far more than {max_pixels} pixels; scale it down") from error
    except UnidentifiedImageError as error:
        raise BadImage("not a JPEG, PNG or WebP image") from error
    except Exception as error:
        raise BadImage(f"not a whole JPEG, PNG or WebP image ({error})") from error


def pixels_in(data: bytes) -> int:
    """Width × height of a picture, as its header says; nothing is decoded. 0 for bytes that are no picture."""
    _lift_bomb_limit(LARGEST_HEADER)
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return image.width * image.height
    except Exception:  # noqa: BLE001  `open_image` names the fault when it decodes the picture
        return 0


def _lift_bomb_limit(max_pixels: int) -> None:
    """Lets Pillow open whatever we would: its own limit is 179 million pixels. It is never lowered again."""
    with _LIMIT:
        if Image.MAX_IMAGE_PIXELS is not None:
            Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, max_pixels)


def read_bounded(path: Path) -> bytes:
    """The bytes of a picture's file; never of a device, and never more than `MAX_BYTES`.

    Raises:
        BadImage: It is no file, or is larger.
        Exception: What the disk or the store raises.
    """
    if is_local(path) and not stat.S_ISREG(path.stat().st_mode):
        raise BadImage(f"{path}: no regular file, so no picture; import again")
    with path.open("rb") as file:
        data: bytes = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise BadImage(f"{path}: larger than {MAX_BYTES:,} bytes; scale it down, and import again")
    return data


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits a pixel: Pillow would clip, not scale
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")
