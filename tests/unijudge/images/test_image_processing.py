"""Scaling: the same sizes and the same pixels as the model family's own processor."""

import io
import math
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import (
    Qwen2VLImageProcessorPil,
    smart_resize,
)

from judge_service.settings import ModelSettings
from unijudge.errors import SettingsError
from unijudge.images.image_processing import PictureReader, PixelBudget, fitted
from unijudge.modeling.families import QwenVL

BUDGET = {"min_pixels": 56 * 56, "max_pixels": 168 * 168}


def family_of(*budget, patch=14):
    tower = SimpleNamespace(patch_size=patch, temporal_patch_size=2, spatial_merge_size=2)
    config = SimpleNamespace(image_token_id=7, vision_start_token_id=8, vision_config=tower)
    return QwenVL(config, Qwen2VLImageProcessorPil(patch_size=patch), PixelBudget(*budget))


def reader_of(*resize, **options):
    return PictureReader(family_of(*BUDGET.values(), *resize), max_source_pixels=10**6, **options)


@given(
    st.integers(1, 3000),
    st.integers(1, 3000),
    st.sampled_from([28, 32]),
    st.sampled_from([3136, 12845056]),
)
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


@st.composite
def budgets(draw):
    """Draws two bounds of pixels, mostly close together.

    Then one size may be below the lower bound, and the next size above the upper bound.
    """
    least = draw(st.integers(1, 250_000))
    return least, least + draw(st.sampled_from([0, 1, 28, 784, 3136, 10**6]))


@settings(max_examples=1000)
@given(st.integers(1, 6000), st.integers(1, 6000), budgets(), st.sampled_from([14, 16]))
def test_no_processor_scales_what_was_scaled(height, width, budget, patch):
    """For any length and any budget, the scaled size is within the budget, scaling it again changes nothing, and an
    engine does not scale it.
    """
    if max(height, width) > 200 * min(height, width):
        return
    side = 2 * patch
    family = family_of(*budget, patch=patch)
    ours = family.fit(height, width)
    assert family.fit(*ours) == ours
    assert ours[0] % side == ours[1] % side == 0
    assert math.prod(ours) <= max(budget[1], side**2)
    assert max(ours) <= 200 * min(ours)
    bounds = family.engine_options["size"]
    theirs = smart_resize(
        *ours, side, min_pixels=bounds["shortest_edge"], max_pixels=bounds["longest_edge"]
    )
    assert theirs == ours


@given(st.integers(1, 6000), st.integers(1, 6000), budgets())
def test_sizes_without_tokens_do_not_change_when_scaled_again(height, width, budget):
    """In families with tiles, the side of a token is one pixel."""
    if max(height, width) <= 200 * min(height, width):
        ours = PixelBudget(*budget).fit(height, width, 1)
        assert PixelBudget(*budget).fit(*ours, 1) == ours
        assert math.prod(ours) <= budget[1]


def test_a_size_below_the_least_remains_where_the_next_is_above_the_most():
    """100 × 110 pixels in at most four tokens become 1 × 2 tokens, because 2 × 3 tokens would be six.

    If six are allowed, 2 × 3 are used.
    """
    assert PixelBudget(3136, 3136).fit(100, 110, 28) == (28, 56)
    assert PixelBudget(3136, 3136).fit(64, 48, 28) == (56, 56)
    assert PixelBudget(3136, 3136).fit(20, 30, 28) == (28, 56)
    assert PixelBudget(3136, 6 * 784).fit(20, 30, 28) == (56, 84)


def test_bounds_that_no_size_meets_are_refused():
    with pytest.raises(
        SettingsError, match=r"^model.min_pixels: 5000 is more than model.max_pixels = 3136"
    ):
        PixelBudget(5000, 3136)
    with pytest.raises(
        SettingsError, match=r"^model.min_pixels: 5000 is more than model.max_pixels = 3136"
    ):
        ModelSettings(min_pixels=5000, max_pixels=3136)


@pytest.mark.parametrize("most", [451584, 1280 * 28 * 28, 3000, 100])
def test_squares_are_the_references(most):
    """672 pixels a side give 576 tokens.

    980 pixels are the limit of a processor with 1,280 tokens. A picture has at least one token.
    """
    side = {451584: 672, 1280 * 28 * 28: 980, 3000: 28, 100: 28}[most]
    for size in [(1, 2999), (500, 900), (1344, 1344)]:
        assert family_of(3136, most, "square").fit(*size) == (side, side)
        assert smart_resize(side, side, factor=28, min_pixels=1, max_pixels=max(most, 784)) == (
            side,
            side,
        )


def test_a_square_holds_the_pixels_that_pillow_makes():
    pixels = np.random.default_rng(0).integers(0, 256, (60, 200, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    squashed = Image.fromarray(pixels).resize((168, 168))
    assert np.array_equal(reader_of("square")(out.getvalue()).image, squashed)


def test_the_cache_keeps_what_fits_and_results_stay_right():
    def encode(color):
        out = io.BytesIO()
        Image.new("RGB", (56, 56), color).save(out, "PNG")
        return out.getvalue()

    reader = reader_of(keep_bytes=2 * 3 * 56 * 56)
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

    reader = reader_of(keep_bytes=3 * 3 * 56 * 56)
    pictures = [encode(value) for value in range(12)]
    with ThreadPoolExecutor(8) as pool:
        read = list(
            pool.map(
                lambda place: reader(pictures[place % 12]).image.getpixel((0, 0))[0], range(2000)
            )
        )
    assert read == [place % 12 for place in range(2000)]
    assert len(reader._recent) == 3
    assert reader._recent.currsize == 3 * 3 * 56 * 56


def test_a_picture_larger_than_the_cache_evicts_nothing():
    def encode(side):
        out = io.BytesIO()
        Image.new("RGB", (side, side)).save(out, "PNG")
        return out.getvalue()

    reader, small, large = reader_of(keep_bytes=3 * 56 * 56), encode(56), encode(112)
    kept = reader(small)
    assert reader(large).nbytes > 3 * 56 * 56
    assert reader(small) is kept
