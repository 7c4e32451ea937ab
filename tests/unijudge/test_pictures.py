"""Scaling: the same sizes and the same pixels as the model family's own processor."""

import io
import math
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil, smart_resize

from unijudge.families import QwenVL
from unijudge.pictures import PictureReader, fitted

BUDGET = {"min_pixels": 56 * 56, "max_pixels": 168 * 168}


def reader_of(**options):
    family = QwenVL(SimpleNamespace(image_token_id=7), Qwen2VLImageProcessorPil(), **BUDGET)
    return PictureReader(family, max_source_pixels=10**6, **options)


@given(st.integers(1, 3000), st.integers(1, 3000), st.sampled_from([28, 32]), st.sampled_from([3136, 12845056]))
def test_sizes_are_the_processors_own(height, width, side, most):
    if max(height, width) <= 200 * min(height, width):
        theirs = smart_resize(height, width, factor=side, min_pixels=3136, max_pixels=most)
        assert fitted(height, width, side, 3136, most) == theirs


@settings(deadline=None, max_examples=30)
@given(st.integers(5, 300), st.integers(5, 300), st.integers(0, 99))
def test_pixels_are_the_processors_own(height, width, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    reader = reader_of()
    processor = Qwen2VLImageProcessorPil(**BUDGET)
    mine = processor(images=[reader(out.getvalue()).image], do_resize=False, return_tensors="np")
    theirs = processor(images=[Image.fromarray(pixels)], return_tensors="np")
    assert (mine["image_grid_thw"] == theirs["image_grid_thw"]).all()
    assert (mine["pixel_values"] == theirs["pixel_values"]).all()


@given(st.integers(1, 6000), st.integers(1, 6000), st.sampled_from([(3136, 12544), (3136, 235200)]))
def test_no_processor_scales_what_was_scaled(height, width, budget):
    """However long: each engine's own processor then leaves a picture as it is."""
    if max(height, width) <= 200 * min(height, width):
        family = QwenVL(SimpleNamespace(image_token_id=7), Qwen2VLImageProcessorPil(), *budget)
        ours = family.fit(height, width)
        assert smart_resize(*ours, factor=28, min_pixels=budget[0], max_pixels=budget[1]) == ours
        narrow = QwenVL(SimpleNamespace(image_token_id=7), Qwen2VLImageProcessorPil(), budget[0], budget[0])
        assert math.prod(narrow.fit(height, width)) <= budget[0]


def test_it_keeps_what_fits_and_stays_right_when_it_does_not():
    def encode(color):
        out = io.BytesIO()
        Image.new("RGB", (56, 56), color).save(out, "PNG")
        return out.getvalue()

    reader = reader_of(keep_bytes=2 * 3 * 56 * 56 + 500)
    pictures = [encode((value, 0, 0)) for value in range(5)]
    for _ in range(2):
        for value, data in enumerate(pictures):
            assert reader(data).image.getpixel((0, 0)) == (value, 0, 0)
            assert reader(data) is reader(data)
    assert len(reader._recent) == 2


def test_many_threads_read_at_once():
    def encode(value):
        out = io.BytesIO()
        Image.new("RGB", (56, 56), (value, 0, 0)).save(out, "PNG")
        return out.getvalue()

    reader = reader_of(keep_bytes=3 * 3 * 56 * 56 + 600)
    pictures = [encode(value) for value in range(12)]
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda place: reader(pictures[place % 12]).image.getpixel((0, 0))[0], range(2000)))
    assert read == [place % 12 for place in range(2000)]
    kept = sum(len(data) + 3 * 56 * 56 for data in pictures if reader._recent.get(data))
    assert len(reader._recent) == 3
    assert reader._recent.free_bytes == 3 * 3 * 56 * 56 + 600 - kept
