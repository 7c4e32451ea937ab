"""Small pictures for tests."""

import io

import numpy as np
from PIL import Image


def png(color="red", size=(60, 60)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, color).save(out, "PNG")
    return out.getvalue()


def png_of(picture) -> bytes:
    """The bytes of a picture as a PNG file."""
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


def noise(seed, size=(64, 64)):
    """A picture that cannot be compressed: 12 kB."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def pattern(seed, size) -> bytes:
    """A gradient of sixteen colours, in which all rows, columns and tiles differ."""
    tile = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(tile).resize(size, Image.Resampling.BICUBIC).save(out, "PNG")
    return out.getvalue()
