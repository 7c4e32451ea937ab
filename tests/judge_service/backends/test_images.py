"""Unusual and hostile pictures: the judge answers or refuses each picture with its own reason, and later answers do not
change.
"""

import asyncio
import gzip
import io
import pickle
import re
import struct
import zlib

import httpx2
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from judge_service.backends import open_judge
from judge_service.replica.app import create_app
from judge_service.replica.health import WatchedJudge
from judge_service.settings import HealthSettings, LimitSettings, ModelSettings, ServiceSettings
from unijudge.client.client import JudgeClient
from unijudge.content import Content
from unijudge.judging.verdicts import PairError, Verdict

PIXELS = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
PLAIN = Image.fromarray(PIXELS)


def encode(image=PLAIN, kind="PNG", **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_of(width, height, data=b""):
    """A PNG whose header has the given size, with any content."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def frames(kind):
    return encode(PLAIN, kind, save_all=True, append_images=[PLAIN.rotate(90), PLAIN.rotate(180)])


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def text_bomb():
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "x" * 70_000_000, zip=True)
    return encode(pnginfo=info)


PNG, JPEG, WEBP = encode(), encode(kind="JPEG"), encode(kind="WEBP", lossless=True)
JUDGED = "judged"
OTHER = "not a JPEG, PNG or WebP"
BROKEN = "not a (whole )?JPEG, PNG or WebP"
IMAGES = {
    "a PNG": (PNG, JUDGED),
    "a JPEG": (JPEG, JUDGED),
    "a lossless WebP": (WEBP, JUDGED),
    "one pixel": (encode(PLAIN.crop((0, 0, 1, 1))), JUDGED),
    "200 times as long as wide": (encode(Image.new("RGB", (200, 1))), JUDGED),
    "1 by 20000": (encode(Image.new("RGB", (1, 20000))), "one side is over 200 times the other"),
    "20000 by 1": (encode(Image.new("RGB", (20000, 1))), "one side is over 200 times the other"),
    "a bomb that claims 30000 by 30000": (png_of(30000, 30000), "900|more than"),
    "a real bomb of 225 million pixels": (
        encode(Image.new("1", (15_000, 15_000))),
        "more than 200000000",
    ),
    "clip art of 169 million pixels": (encode(Image.new("1", (10_562, 16_000))), JUDGED),
    "a PNG that claims no width": (png_of(0, 10), BROKEN),
    "a PNG without pixels": (png_of(10, 10), BROKEN),
    "a bomb of compressed text, which is skipped": (text_bomb(), JUDGED),
    "CMYK": (encode(PLAIN.convert("CMYK"), "JPEG"), JUDGED),
    "16 bits a pixel": (encode(Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257)), JUDGED),
    "grey": (encode(PLAIN.convert("L")), JUDGED),
    "one bit a pixel": (encode(PLAIN.convert("1")), JUDGED),
    "a palette with transparency": (encode(PLAIN.quantize(8), transparency=0), JUDGED),
    "transparent": (encode(PLAIN.convert("RGBA")), JUDGED),
    "turned by EXIF": (encode(kind="JPEG", exif=exif(6)), JUDGED),
    "an impossible EXIF orientation": (encode(kind="JPEG", exif=exif(99)), JUDGED),
    "a broken colour profile": (encode(icc_profile=b"nonsense"), JUDGED),
    "an animated PNG": (frames("PNG"), "animated"),
    "an animated WebP": (frames("WEBP"), "animated"),
    "an animated GIF": (frames("GIF"), OTHER),
    "a TIFF": (encode(kind="TIFF"), OTHER),
    "a BMP": (encode(kind="BMP"), OTHER),
    "an ICO": (encode(kind="ICO"), OTHER),
    "a JPEG 2000": (encode(kind="JPEG2000"), OTHER),
    "an EPS": (encode(kind="EPS"), OTHER),
    "a PPM": (encode(kind="PPM"), OTHER),
    "an SVG": (
        b'<svg xmlns="http://www.w3.org/2000/svg"><image href="http://127.0.0.1:1/x"/></svg>',
        OTHER,
    ),
    "a PNG cut in half": (PNG[: len(PNG) // 2], BROKEN),
    "a JPEG cut in half": (JPEG[: len(JPEG) // 2], BROKEN),
    "a WebP cut in half": (WEBP[: len(WEBP) // 2], BROKEN),
    "a PNG with a wrong checksum": (PNG[:40] + bytes([PNG[40] ^ 255]) + PNG[41:], BROKEN),
    "a PNG that is a ZIP as well": (PNG + b"PK\x05\x06" + bytes(18), JUDGED),
    "a JPEG with a script behind it": (JPEG + b"<script>alert(1)</script>", JUDGED),
    "a pickle": (pickle.dumps(PIXELS), OTHER),
    "a gzipped PNG": (gzip.compress(PNG), OTHER),
    "a page": (b"<html><img src=x></html>", OTHER),
    "zeros": (bytes(1000), OTHER),
}


@pytest.fixture(scope="module")
def judge(tiny_model):
    model = ModelSettings(
        name=str(tiny_model), backend="transformers", min_pixels=3136, max_pixels=12544
    )
    return WatchedJudge(
        open_judge(ServiceSettings(model=model)), HealthSettings(min_label_mass=0, canary_every_s=0)
    )


def test_odd_pictures_get_a_verdict_or_an_error_and_other_scores_stay_the_same(judge):
    assert len(IMAGES) >= 40
    app = create_app(judge, LimitSettings(max_candidates=64))

    async def ask():
        transport = httpx2.ASGITransport(app)
        async with JudgeClient("http://judge", transport=transport, retry_for_s=1) as client:
            known = [Content(text="a"), Content(image=PNG)]
            before = await client.judge(Content(text="q"), known)
            answers = await client.judge(
                Content(text="q"), [Content(image=data) for data, _ in IMAGES.values()]
            )
            after = await client.judge(Content(text="q"), known)
            return before, answers, after

    before, answers, after = asyncio.run(ask())
    for (name, (_, due)), answer in zip(IMAGES.items(), answers, strict=True):
        if due == JUDGED:
            assert isinstance(answer, Verdict), (name, answer)
        else:
            assert isinstance(answer, PairError), name
            assert answer.code == "bad_image"
            assert re.search(due, answer.message), (name, answer.message)
    assert before == after
    named = dict(zip(IMAGES, answers, strict=True))
    # The scores differ only by rounding, because other pairs are in the batch.
    for same in ("a PNG", "a lossless WebP", "a PNG that is a ZIP as well"):
        assert abs(named[same].log_odds - before[1].log_odds) < 1e-4


def test_a_turned_picture_is_judged_upright(judge):
    turned = encode(PLAIN.transpose(Image.Transpose.ROTATE_90), kind="PNG", exif=exif(6))
    upright, by_exif = asyncio.run(
        judge.judge(Content(text="q"), [Content(image=PNG), Content(image=turned)])
    )
    assert upright.log_odds == by_exif.log_odds
