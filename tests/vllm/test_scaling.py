"""The engine does not scale a picture again that we have scaled: tokens and pixels are the same, for every family,
budget and shape. Most shapes run only through vLLM's own processors, which run before its engine and are cheap. Some
pairs run through the engine too.
"""

import asyncio
import io
import random

import numpy as np
import pytest
import torch
from PIL import Image

from demo.tiny_model import make_model
from judge_service.backends import open_judge
from judge_service.settings import ModelSettings, ServiceSettings
from tests.families import MAKERS
from tests.pictures import png
from unijudge.content import Content
from unijudge.judging.verdicts import Verdict
from unijudge.modeling.inputs import ModelInputs

pytest.importorskip("vllm")

FAMILIES = {"qwen2_5_vl": make_model} | MAKERS
BUDGETS = [(3136, 3136), (50176, 50176), (3136, 235200), (1, 700), (20000, 21000)]
SHAPES = [
    (100, 110),
    (300, 100),
    (640, 480),
    (40, 80),
    (64, 48),
    (1000, 90),
    (1, 200),
    (2000, 10),
    (5, 5),
]


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("scaling") / request.param
    FAMILIES[request.param](folder)
    return folder


def vllm_processor(folder, options):
    """Returns what vLLM makes of a prompt before the engine gets it."""
    from vllm.config import ModelConfig
    from vllm.multimodal import MULTIMODAL_REGISTRY

    config = ModelConfig(
        model=str(folder), dtype="float32", max_model_len=2048, mm_processor_kwargs=dict(options)
    )
    return MULTIMODAL_REGISTRY.create_processor(config)


def processed(processor, ids, image):
    """Returns the tokens and arrays of a prompt that is one picture."""
    items = processor.info.parse_mm_data({"image": [image]})
    made = processor(ids, mm_items=items)
    (item,) = made["mm_kwargs"]["image"]
    return made["prompt_token_ids"], item.get_data()


def as_bytes(normalised, processor):
    """The pixels before their normalisation. Channels are the slowest dimension of a patch."""
    channels = normalised.reshape(len(normalised), 3, -1)
    mean, std = (np.array(one)[:, None] for one in (processor.image_mean, processor.image_std))
    return np.rint(255 * (channels * std + mean)).reshape(normalised.shape)


@pytest.mark.parametrize("budget", BUDGETS, ids=str)
def test_the_engine_does_not_change_our_pictures(folder, budget):
    inputs = ModelInputs(
        str(folder), None, min_pixels=budget[0], max_pixels=budget[1], max_source_pixels=10**8
    )
    processor = vllm_processor(folder, inputs.family.engine_options)
    dice = random.Random(budget[1])
    others = [(dice.randint(9, 900), dice.randint(9, 900)) for _ in range(5)]
    for seed, size in enumerate(SHAPES + others):
        pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        out = io.BytesIO()
        Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(out, "PNG")
        picture = inputs.pictures(out.getvalue())
        ours = inputs.picture_arrays([[out.getvalue()]])
        ids, theirs = processed(processor, inputs.placeholders([out.getvalue()]), picture.image)
        assert tuple(ids) == picture.token_ids, (size, picture.image.size)
        # One tile more or less, or a picture that is scaled again, would change the result here.
        (found,) = (
            theirs[name] for name in ("pixel_values", "pixel_values_flat") if name in theirs
        )
        expected = ours["pixel_values"].reshape(found.shape)
        if found.dtype == torch.uint8:  # the engine normalises these pixels on its device
            expected = as_bytes(expected, inputs.family._processor)
        assert np.array_equal(found.numpy(), expected), (size, picture.image.size)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "internvl"])
def test_no_pair_is_lost_if_both_limits_are_one(family, tmp_path):
    """The pairs run through the engines. In the past, vLLM gave nearly all of these pairs no verdict."""
    FAMILIES[family](tmp_path)
    budget = {"min_pixels": 3136, "max_pixels": 3136, "max_tokens": 1024}
    judges = [
        open_judge(
            ServiceSettings(model=ModelSettings(name=str(tmp_path), backend=backend, **budget))
        )
        for backend in ("vllm", "transformers")
    ]
    query = Content(text="Which?", image=png("red", (300, 100)))
    candidates = [Content(image=png("blue", size)) for size in SHAPES]
    served, exact = (asyncio.run(judge.judge(query, candidates)) for judge in judges)
    assert all(isinstance(one, Verdict) for one in served + exact), served
    assert max(abs(s.log_odds - e.log_odds) for s, e in zip(served, exact, strict=True)) < 1e-4
