"""Pictures are decoded safely, or refused with the reason."""

import contextlib
import io
import struct
import threading
import warnings
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.pictures import png
from unijudge.errors import BadImage
from unijudge.images.decoding import open_image


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not a JPEG"),
        (b"hello", "not a JPEG"),
        (png()[:-40], "not a whole"),
        (png(size=(1, 401)), "one side is over"),
    ],
)
def test_a_bad_image_is_refused(data, reason):
    with pytest.raises(BadImage, match=reason):
        open_image(data)


def test_a_picture_of_900_million_pixels_is_refused_in_our_words():
    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    """Pillow's own limit may come first, or was lifted already for somebody else."""
    words = r"^image of (far more than 200000000 pixels|30000×30000 pixels: more than 200000000). Scale it down$"
    with pytest.raises(BadImage, match=words):
        open_image(data)


def test_a_large_picture_is_made_smaller_while_it_is_decoded():
    """The picture is clip art of 10,562 × 16,000 pixels whose left half is black. No side is left out."""
    drawn = Image.new("1", (10_562, 16_000), 1)
    drawn.paste(0, (0, 0, 5281, 16_000))
    out = io.BytesIO()
    drawn.save(out, "PNG")
    found = open_image(out.getvalue())
    assert found.size == (5281, 8000)
    corners = [found.getpixel(place) for place in ((0, 0), (2630, 7999), (2650, 0), (5280, 7999))]
    assert corners == [(0, 0, 0), (0, 0, 0), (255, 255, 255), (255, 255, 255)]


def test_a_full_memory_is_not_a_bad_picture(monkeypatch):
    def full(*_, **__):
        raise MemoryError

    monkeypatch.setattr(Image, "open", full)
    with pytest.raises(MemoryError):
        open_image(png())


def test_our_own_limit_may_be_above_pillows(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow refuses twice as many pixels
    assert open_image(png(size=(30, 30)), max_pixels=1000).size == (30, 30)
    with pytest.raises(BadImage, match=r"^image of 40×40 pixels: more than 1000. Scale it down$"):
        open_image(png(size=(40, 40)), max_pixels=1000)
    assert open_image(png(size=(30, 30))).size == (30, 30), "another caller's limit stays"


def test_threads_leave_the_filters_of_warnings_alone(monkeypatch):
    """Two pictures are decoded at once, and the first finishes first.

    Code that saves and restores the filters would restore the wrong filters.
    """
    before, opened = list(warnings.filters), Image.open
    both, first = threading.Barrier(2), threading.Event()

    def opening(data, **options):
        both.wait(10)
        if threading.current_thread().name == "second":
            first.wait(10)
        return opened(data, **options)

    def work():
        open_image(png())
        first.set()

    monkeypatch.setattr(Image, "open", opening)
    threads = [threading.Thread(target=work, name=name) for name in ("first", "second")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(warnings.filters) == before


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(["PNG", "JPEG", "WEBP"]), st.data())
def test_no_malformed_image_raises_anything_else(kind, data):
    """Any bytes are changed at any place, including EXIF. The result is a picture or BadImage."""
    out = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112], exif[0x010E], exif[0x011A] = 6, "a description", 72.0
    Image.new("RGB", (12, 8), "red").save(out, kind, exif=exif)
    spoiled = bytearray(out.getvalue())
    for place in data.draw(st.lists(st.integers(0, len(spoiled) - 1), max_size=12)):
        spoiled[place] = data.draw(st.integers(0, 255))
    with contextlib.suppress(BadImage):
        assert open_image(bytes(spoiled)).mode == "RGB"


def test_sixteen_bit_and_transparent_images_become_rgb():
    out = io.BytesIO()
    Image.new("I;16", (4, 4), 65535 // 2).save(out, "PNG")
    assert open_image(out.getvalue()).getpixel((0, 0)) == (127, 127, 127)
    out = io.BytesIO()
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(out, "PNG")
    assert open_image(out.getvalue()).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("depth", "shade", "row"),
    [
        (1, 1, b"\xaa"),
        (1, 0, b"\x55"),
        (2, 1, b"\x44"),
        (4, 7, b"\x70"),
        (8, 7, b"\x07\0"),
        (16, 300, b"\x01\x2c\0\0"),
    ],
)
def test_a_transparent_shade_of_gray_is_white_at_every_depth(depth, shade, row):
    """The first pixel has the transparent shade.

    Pillow scales the shades of pictures with few bits, but not this shade.
    """

    def chunk(name, content):
        return (
            struct.pack(">I", len(content))
            + name
            + content
            + struct.pack(">I", zlib.crc32(name + content))
        )

    head = struct.pack(">IIBBBBB", 2, 1, depth, 0, 0, 0, 0)
    chunks = [
        chunk(b"IHDR", head),
        chunk(b"tRNS", struct.pack(">H", shade)),
        chunk(b"IDAT", zlib.compress(b"\0" + row)),
    ]
    image = open_image(b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + chunk(b"IEND", b""))
    assert image.getpixel((0, 0)) == (255, 255, 255)
    assert image.getpixel((1, 0)) == ((255,) * 3 if (depth, shade) == (1, 0) else (0, 0, 0))
