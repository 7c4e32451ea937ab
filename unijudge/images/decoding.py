"""The safe decoding of pictures: format and size are checked before any pixel is decoded."""

import io
import math
import stat
import threading
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from unijudge.errors import BadImage
from unijudge.images.side_data import without_side_data
from unijudge.storage.access_errors import in_one_line
from unijudge.storage.locations import is_local
from unijudge.storage.texts import HEAD_BYTES, LFS

FORMATS = ("JPEG", "PNG", "WEBP")
MAX_PIXELS = 200_000_000
"""The default limit of pixels in a picture: the number in the largest photographs of phones."""
LARGE = 50_000_000
"""Pixels above which a picture is made smaller while it is decoded."""
STRIP = 256
"""Rows of a large picture's smaller copy that are made at the same time."""
MAX_ASPECT_RATIO = 200
MAX_BYTES = 200 * 2**20
"""The limit of bytes in an encoded picture. A larger file is never read."""
LARGEST_HEADER = 2**31
"""The limit of pixels in a header when only the number of pixels is wanted."""
OTHER_FORMATS = {
    b"GIF8": "a GIF", b"BM": "a BMP", b"II*\0": "a TIFF", b"MM\0*": "a TIFF", b"%PDF": "a PDF", b"jP  ": "a JPEG 2000",
    b"\xff\x0a": "a JPEG XL", b"JXL ": "a JPEG XL", b"ftypavi": "an AVIF", b"ftyphe": "a HEIC", b"ftypmif1": "a HEIC",
    b"8BPS": "a file of Photoshop",
}  # fmt: skip
"""First bytes of other formats, or bytes 5 and later → the name of the format. Such files too may be named .jpg."""
LONGEST_MARK = 12
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
"""EXIF orientation → the operation that makes the picture upright."""
_LIMIT = threading.Lock()
"""The lock of Pillow's limit, which belongs to the whole process."""
_ONE_AT_A_TIME = threading.Lock()
"""The lock for decoding large pictures, each of which takes up to four bytes per pixel."""

T = TypeVar("T")

# Pillow warns about strange metadata and large pictures. The warnings cannot be switched off for a single call: all
# threads share Python's filters, and a thread that restores old filters could switch others off for ever.
warnings.filterwarnings("ignore", module=r"PIL\.")


def open_image(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decodes one picture safely: format and size are checked before any pixel is decoded.

    A picture of more than `LARGE` pixels is scaled to a half or less while it is decoded. Only one such picture is
    decoded at a time.

    Args:
        data: The bytes of a JPEG, PNG or WebP file. Of a file with several pictures, as phones write, the first is
            decoded.
        max_pixels: The largest allowed width × height.

    Returns:
        An RGB image, turned by its EXIF orientation. Transparent parts are white.

    Raises:
        BadImage: The picture has another format, is animated, truncated or too large, or one side is over 200 times
            the other.
        MemoryError: The memory is full. The picture may be valid.
    """
    try:
        return _pixels_decide(data, lambda found: _still(found, max_pixels))
    except (BadImage, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise BadImage(f"image of far more than {max_pixels} pixels. Scale it down") from error
    except UnidentifiedImageError as error:
        raise BadImage(f"not a JPEG, PNG or WebP image{_instead(data)}") from error
    except Exception as error:
        raise BadImage(f"not a whole JPEG, PNG or WebP image ({in_one_line(error)})") from error


def _instead(data: bytes) -> str:
    """Returns what bytes are if they are not a supported picture, and the cure, for a message."""
    if not data:
        return ", but an empty file. Download it again"
    if data.startswith(LFS):
        return ", but a pointer of Git LFS, not the file itself. Fetch it: git lfs pull"
    head = data[:HEAD_BYTES].lstrip().lower()
    if head.startswith((b"<!doctype", b"<html", b"<?xml", b"<svg", b"{")):
        if b"<svg" in data[:1000]:
            return ", but a drawing in SVG. Convert it"
        return ", but a text, which a server sent instead of a picture. Download it again"
    kind = next(
        (kind for mark, kind in OTHER_FORMATS.items() if data[:LONGEST_MARK].find(mark) in (0, 4)),
        "",
    )
    return f", but {kind}. Convert it" if kind else ""


def pixels_in(data: bytes) -> int:
    """Returns width × height from a picture's header, without decoding. Returns 0 for bytes that are not a picture."""
    try:
        width, height = _pixels_decide(data, _size)
    except Exception:  # noqa: BLE001  `open_image` names the fault when it decodes the picture
        return 0
    return width * height


def _pixels_decide(data: bytes, read: Callable[[bytes], T]) -> T:
    """Returns the result of `read` for a picture. If `read` fails, tries again without the picture's side data."""
    try:
        return read(data)
    except (BadImage, MemoryError, Image.DecompressionBombError):
        raise
    except Exception:  # noqa: BLE001  a damaged profile, text or thumbnail may raise anything
        return read(without_side_data(data))


def _size(data: bytes) -> tuple[int, int]:
    _lift_bomb_limit(LARGEST_HEADER)
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        return image.size


def _still(data: bytes, max_pixels: int) -> Image.Image:
    """Decodes a picture after checking its header."""
    _lift_bomb_limit(max_pixels)
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        width, height = image.size
        if width * height > max_pixels:
            raise BadImage(
                f"image of {width}×{height} pixels: more than {max_pixels}. Scale it down"
            )
        if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
            raise BadImage(
                f"image of {width}×{height} pixels: one side is over {MAX_ASPECT_RATIO} times the other"
            )
        image.info.update(_transparent_gray(data, image))
        if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
            raise BadImage("animated image: only still pictures can be judged. Save one frame")
        return _decoded(image)


def _transparent_gray(data: bytes, image: Image.Image) -> dict[str | tuple[int, int], int]:
    """Returns the transparent shade of a gray PNG with less than eight bits per pixel, scaled as its pixels are."""
    depth, shade = data[24], image.info.get("transparency")
    if (
        not isinstance(shade, int)
        or image.format != "PNG"
        or image.mode not in ("1", "L")
        or depth >= 8
    ):
        return {}
    return {"transparency": shade * 255 // (2**depth - 1)}


def _decoded(image: Image.Image) -> Image.Image:
    """Decodes the pixels of an opened picture, upright and in RGB."""
    is_large = image.width * image.height > LARGE
    with _ONE_AT_A_TIME if is_large else nullcontext():
        if is_large:  # a JPEG can be decoded at a half, a quarter or an eighth of its size; other formats ignore this
            image.draft(image.mode, _smaller(image))
        image.load()
        shrink = _times(image)
        plain = _to_rgb(image) if shrink == 1 else _shrunk(image, shrink)
        turn = TURNS.get(_orientation(image))
    return plain if turn is None else plain.transpose(turn)


def _times(image: Image.Image) -> int:
    """Returns the factor by which each side is made smaller."""
    return math.ceil(math.sqrt(image.width * image.height / LARGE))


def _smaller(image: Image.Image) -> tuple[int, int]:
    times = _times(image)
    return image.width // times, image.height // times


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001  damaged side data may raise anything; the picture is then not turned
        return 1


def _shrunk(image: Image.Image, times: int) -> Image.Image:
    """Makes each side of a decoded picture `times` smaller, strip by strip, since a whole RGB copy would be large."""
    width, height = image.size
    size = (math.ceil(width / times), math.ceil(height / times))
    out = Image.new("RGB", size)
    rows = times * STRIP
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        strip = image.crop((0, top, width, bottom))
        small = _to_rgb(strip).reduce(times)
        out.paste(small, (0, top // times))
    return out


def _lift_bomb_limit(max_pixels: int) -> None:
    """Raises Pillow's limit, which is 179 million pixels by default, to ours. The limit is never lowered again."""
    with _LIMIT:
        if Image.MAX_IMAGE_PIXELS is not None:
            Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, max_pixels)


def read_bounded(path: Path) -> bytes:
    """Reads the bytes of a picture's file.

    Raises:
        BadImage: The path is not a regular file (a device, for example), or the file is larger than `MAX_BYTES`.
        Exception: An error of the disk or the store.
    """
    if is_local(path) and not stat.S_ISREG(path.stat().st_mode):
        raise BadImage(f"{path}: not a regular file, so not a picture. Import again")
    with path.open("rb") as file:
        data: bytes = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise BadImage(f"{path}: larger than {MAX_BYTES:,} bytes. Scale it down, and import again")
    return data


def _to_rgb(image: Image.Image) -> Image.Image:
    # 16 bits per pixel: Pillow would clip the values, not scale them.
    if image.mode.startswith("I"):
        shades = np.asarray(image)
        image = Image.fromarray(
            np.where(shades == image.info.get("transparency"), 255, shades >> 8).astype(np.uint8)
        )
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    # `convert` copies every pixel even for RGB.
    return image if image.mode == "RGB" else image.convert("RGB")
