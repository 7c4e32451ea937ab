"""Which of the accepted image formats a file has, by its first bytes. Nothing is decoded."""

from typing import Literal

PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8"

ImageKind = Literal["jpeg", "png", "webp"]


def image_kind(data: bytes) -> ImageKind | None:
    r"""Returns the format of an encoded image, or None if it is not JPEG, PNG or WebP.

    Example:
        >>> image_kind(b"\xff\xd8\xff\xe0"), image_kind(b"RIFF\0\0\0\0WEBPVP8 "), image_kind(b"GIF89a")
        ('jpeg', 'webp', None)
    """
    if data.startswith(JPEG):
        return "jpeg"
    if data.startswith(PNG):
        return "png"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    return None
