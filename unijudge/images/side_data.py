"""The removal of side data from a picture's bytes: colour profiles, texts, thumbnails and second pictures.

Pillow reads side data before the pixels, and refuses the whole picture if the side data is damaged or large.
"""

import zlib
from collections.abc import Iterator

from unijudge.images.file_kind import JPEG, PNG, image_kind

PNG_KEPT = frozenset(
    {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"acTL", b"fcTL", b"fdAT", b"eXIf"}
)
"""Chunks that hold the pixels, their orientation, or an animation."""
JPEG_KEPT = frozenset({0xE0, 0xEE})
"""Application segments that define the colour coding: JFIF and Adobe."""
EXIF = b"Exif\0\0"
WEBP_DROPPED = frozenset({b"EXIF", b"XMP ", b"ICCP"})


def without_side_data(data: bytes) -> bytes:
    """Returns the bytes of a JPEG, PNG or WebP file without side data. After a damaged part, all bytes are kept."""
    match image_kind(data):
        case "png":
            return PNG + b"".join(_png_chunks(data))
        case "jpeg":
            return JPEG + b"".join(_jpeg_segments(data))
        case "webp":
            chunks = b"WEBP" + b"".join(_webp_chunks(data))
            return b"RIFF" + len(chunks).to_bytes(4, "little") + chunks
        case None:
            return data


def _png_chunks(data: bytes) -> Iterator[bytes]:
    """Yields the chunks to keep. A chunk is length, name, content and checksum."""
    at = len(PNG)
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        end = at + 12 + length
        name = data[at + 4 : at + 8]

        # Pillow refuses a whole picture if the checksum of its EXIF data is wrong.
        checksum = int.from_bytes(data[end - 4 : end], "big")
        is_damaged = name == b"eXIf" and zlib.crc32(data[at + 4 : end - 4]) != checksum
        if name in PNG_KEPT and not is_damaged:
            yield data[at:end]
        at = end
    yield data[at:]


def _jpeg_segments(data: bytes) -> Iterator[bytes]:
    """Yields the segments to keep.

    A segment is a marker, a length that includes its own two bytes, and content. From the first scan on, all bytes are
    pixels.
    """
    at = len(JPEG)
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        end = at + 2 + length

        is_comment = marker == 0xFE
        is_of_program = 0xE0 <= marker <= 0xEF and marker not in JPEG_KEPT
        is_exif = marker == 0xE1 and data[at + 4 : at + 10] == EXIF
        if is_exif or not (is_comment or is_of_program):
            yield data[at:end]
        at = end
    yield data[at:]


def _webp_chunks(data: bytes) -> Iterator[bytes]:
    """Yields the chunks to keep.

    A chunk is name, length, content, and a padding byte if the length is odd. The header chunk VP8X announces the side
    data that follows, so its flags are cleared.
    """
    at = 12
    while at + 8 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        end = at + 8 + size + size % 2
        name, chunk = data[at : at + 4], data[at:end]
        if name == b"VP8X":
            chunk = chunk[:8] + bytes([chunk[8] & ~0b0010_1100]) + chunk[9:]
        if name not in WEBP_DROPPED:
            yield chunk
        at = end
    yield data[at:]
