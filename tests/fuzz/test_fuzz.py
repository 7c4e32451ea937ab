"""Damaged inputs to every reader: the result is right, or the error is one of the documented errors.

`make fuzz` runs ten minutes for each reader. `make test` runs a few hundred inputs that are the same each time.
Hypothesis stores failed inputs in .hypothesis, and tries them first in the next run. An input that causes a crash
becomes a test in tests/nasty.
"""

import io
import json
import os
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from judge_service.backends.rendering import open_inputs
from judge_service.front.bodies import read_request
from judge_service.front.errors import HttpError
from judge_service.settings import LimitSettings, ModelSettings
from miner.importers.building.pair import Pair
from miner.importers.pairs import read_pairs
from tests.fuzz.mutations import spoiled
from unijudge.content import Content
from unijudge.errors import BadImage, DataError
from unijudge.foreign.json_rows import array_rows
from unijudge.images.decoding import open_image
from unijudge.judging.prompt import Prompt

SECONDS = float(os.environ.get("FUZZ_SECONDS", "0"))
EXAMPLES = 300
LONGEST_MESSAGE = 600
pytestmark = pytest.mark.timeout(SECONDS + 600)


def fuzz(strategy, check):
    """Tries the same inputs each time, or new inputs until the time is over."""

    @settings(
        max_examples=EXAMPLES, derandomize=not SECONDS, deadline=None, suppress_health_check=list(HealthCheck),
        print_blob=True,
    )  # fmt: skip
    @given(strategy)
    def one(value):
        check(value)

    end = time.monotonic() + SECONDS
    one()
    while time.monotonic() < end:
        one()


def result_or_error(call, promised):
    """Returns the result of a call and None, or None and a documented error with a short message."""
    try:
        return call(), None
    except promised as error:
        message = error.body.message if isinstance(error, HttpError) else str(error)
        if len(message) > LONGEST_MESSAGE:
            pytest.fail(f"a message of {len(message)} characters: {message[:LONGEST_MESSAGE]}")
        return None, error


def pictures():
    """Small pictures of all formats."""
    square = Image.radial_gradient("L").resize((24, 16))
    found = []
    for mode, kind, options in [
        ("RGB", "JPEG", {}), ("RGB", "JPEG", {"progressive": True}), ("CMYK", "JPEG", {}), ("L", "JPEG", {}),
        ("RGB", "PNG", {}), ("RGBA", "PNG", {}), ("P", "PNG", {}), ("1", "PNG", {}), ("I;16", "PNG", {}),
        ("RGB", "WEBP", {}), ("RGBA", "WEBP", {"lossless": True}), ("RGB", "GIF", {}), ("RGB", "TIFF", {}),
    ]:  # fmt: skip
        out = io.BytesIO()
        picture = square.convert("I").convert(mode) if mode == "I;16" else square.convert(mode)
        exif = Image.Exif()
        exif[274] = 6
        with_exif = {} if kind in ("GIF", "TIFF") else {"exif": exif}
        picture.save(out, kind, **options, **with_exif)
        found.append(out.getvalue())
    return found


def test_pictures():
    def check(data):
        image, refused = result_or_error(lambda: open_image(data, max_pixels=10_000), BadImage)
        if not refused:
            assert image.mode == "RGB"
            assert 0 < image.width * image.height <= 10_000

    fuzz(spoiled(pictures()), check)


def test_json_arrays(tmp_path):
    path = tmp_path / "rows.json"
    rows = [{"query": 'é \\ " 🦊', "pos": ["a", {"b": None}], "n": [1, -2.5e3, True]}] * 3
    sound = [
        json.dumps(rows).encode(),
        json.dumps(rows, indent=2, ensure_ascii=False).encode(),
        b"[]",
        b"[[[]]]",
    ]

    def check(data):
        path.write_bytes(data)
        read, refused = result_or_error(lambda: list(array_rows(path)), DataError)
        if not refused:
            assert read == json.loads(data.decode("utf-8-sig"))

    fuzz(spoiled(sound), check)


def test_requests():
    limits = LimitSettings(max_candidates=4)
    content = {"text": 'a \\ " 🦊', "image": "aGVsbG8="}
    body = {"query": content, "candidates": [content, {"text": "b"}, {"image_sha256": "0" * 64}]}
    sound = [json.dumps(body).encode(), json.dumps(body, ensure_ascii=False).encode()]

    def check(data):
        request, refused = result_or_error(lambda: read_request(data, limits), HttpError)
        if refused:
            assert 400 <= refused.status < 500
        else:
            assert 1 <= len(request.candidates) <= limits.max_candidates
            json.loads(data)

    fuzz(spoiled(sound), check)


def test_tables(tmp_path):
    path = tmp_path / "rows.parquet"
    table = pa.table(
        {"query_text": ["a", "b é"] * 20, "positive_text": ["c", None] * 20, "subset": ["s"] * 40}
    )
    sound = []
    for options in (
        {},
        {"compression": "zstd"},
        {"use_dictionary": False, "data_page_version": "2.0"},
    ):
        pq.write_table(table, path, **options)
        sound.append(path.read_bytes())

    def check(data):
        path.write_bytes(data)
        rows, _ = result_or_error(lambda: list(read_pairs(path)), DataError)
        # A column with a damaged name is ignored.
        pairs = [row for row in rows or () if isinstance(row, Pair)]
        texts = [text for row in pairs for text in (row.query.text, row.positive.text)]
        assert all(text is None or isinstance(text, str) for text in texts)

    fuzz(spoiled(sound), check)


def test_prompts(tiny_model):
    """For any text, the prompt has exactly the special tokens of the question."""
    model = ModelSettings(name=str(tiny_model), min_pixels=3136, max_pixels=12544, max_tokens=4096)
    inputs = open_inputs(model, Prompt(), LimitSettings())
    tokenizer = inputs.model.encoder._tokenizer
    special = sorted(tokenizer.get_added_vocab())
    text = st.lists(
        st.one_of(st.text(max_size=40), st.sampled_from(special)), min_size=1, max_size=6
    ).map("".join)
    numbers = set(tokenizer.get_added_vocab().values())

    def specials(query, candidate):
        (stream,) = inputs.renderer.streams(Content(query), [Content(candidate)])
        return [token for token in stream if isinstance(token, int) and token in numbers]

    expected = specials("a", "b")

    def check(texts):
        assert specials(*texts) == expected

    fuzz(st.tuples(text, text), check)
