"""The operations of a pair: the published 7B model computed by hand, and tiny models measured by a counter of all
operations.
"""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count
from transformers import LlavaNextConfig, Qwen2_5_VLConfig, Qwen3VLConfig

from judge_service.backends import open_judge
from judge_service.backends.model_shapes import shape_of
from judge_service.backends.one_thread import Caller
from judge_service.replica.counting import counter_of
from judge_service.settings import ModelSettings, ServiceSettings
from tests.families import MAKERS
from tests.pictures import pattern
from unijudge.content import Content
from unijudge.judging.flops import (
    TokenCount,
    pair_flops,
    text_flops,
    vision_flops,
    wasted_tokens_of,
)
from unijudge.judging.prompt import Prompt

H100_FLOPS = 800e12
"""A second, dense bfloat16: as much as is reached."""
INSTRUCTION, SUFFIX = 64, 12
"""Tokens before the first side, and after the second."""


@pytest.fixture(scope="module")
def qwen_7b():
    """Qwen2.5-VL-7B-Instruct with its published configuration."""
    text = {
        "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
        "num_key_value_heads": 4, "vocab_size": 152064,
    }  # fmt: skip
    tower = {
        "depth": 32,
        "hidden_size": 1280,
        "intermediate_size": 3420,
        "num_heads": 16,
        "out_hidden_size": 3584,
    }
    return shape_of(Qwen2_5_VLConfig(text_config=text, vision_config=tower))


def test_the_constants_of_the_published_model(qwen_7b):
    assert qwen_7b.linear_flops == 28 * 2 * (2 * 3584**2 + 2 * 3584 * 512 + 3 * 3584 * 18944)
    assert qwen_7b.linear_flops == pytest.approx(13.05e9, rel=0.001)
    assert qwen_7b.attention_flops == pytest.approx(0.401e6, rel=0.002)
    assert qwen_7b.head_flops == pytest.approx(1.09e9, rel=0.001)
    for tokens, flops in [(256, 1.35e12), (576, 3.09e12), (1024, 5.65e12), (1280, 7.16e12)]:
        assert vision_flops(qwen_7b.vision, tokens) == pytest.approx(flops, rel=0.003)
    assert text_flops(qwen_7b, 2, 0) == 2 * qwen_7b.linear_flops + 3 * qwen_7b.attention_flops


def rate(qwen_7b, query, candidate, shared):
    """Returns pairs a second with 50 candidates a query and 50 queries a candidate.

    A side is (text tokens, visual tokens).
    """
    sides = {"query": sum(query), "candidate": sum(candidate)}
    count = TokenCount(
        tokens=INSTRUCTION + sum(sides.values()) + SUFFIX,
        shared_tokens=INSTRUCTION + sides[shared],
        query_image_tokens=query[1],
        candidate_image_tokens=candidate[1],
    )
    found = pair_flops(qwen_7b, count, candidates_of_query=50, queries_of_candidate=50)
    return [H100_FLOPS / flops for flops in (found.naive, found.vision_cached, found.prefix_cached)]


@pytest.mark.parametrize(
    ("query", "candidate", "naive", "vision", "query_first", "candidate_first"),
    [
        ((42, 256), (12, 256), 71.7, 93.9, 202, 184),
        ((40, 0), (12, 256), 125, 158, 208, 882),
        ((42, 256), (40, 0), 118, 146, 874, 189),
        ((40, 0), (12, 1280), 30.8, 42.3, 45.2, 605),
        ((42, 1280), (12, 1280), 15.7, 21.7, 42.4, 41.6),
        ((42, 576), (12, 576), 34.4, 46.6, 94.4, 90.2),
        ((40, 0), (120, 0), 259, 259, 429, 956),
    ],
    ids=["S1", "S2", "S3", "S4", "S5", "S6", "S7"],
)
def test_the_limits_of_an_h100(
    qwen_7b, query, candidate, naive, vision, query_first, candidate_first
):
    """The pairs a second were computed independently of this module, on the real modules with their real widths."""
    found = rate(qwen_7b, query, candidate, "query")
    assert found == pytest.approx([naive, vision, query_first], rel=0.01)
    assert rate(qwen_7b, query, candidate, "candidate")[2] == pytest.approx(
        candidate_first, rel=0.01
    )


def test_sharing_a_prefix_never_costs_more(qwen_7b):
    count = TokenCount(
        tokens=642, shared_tokens=362, query_image_tokens=256, candidate_image_tokens=256
    )
    costs = [
        pair_flops(qwen_7b, count, candidates_of_query=k, queries_of_candidate=k)
        for k in (1, 2, 10, 50)
    ]
    assert [c.prefix_cached for c in costs] == sorted(
        (c.prefix_cached for c in costs), reverse=True
    )
    assert costs[0].vision_cached == costs[0].naive == costs[1].naive
    alone = pair_flops(
        qwen_7b, count, candidates_of_query=1, queries_of_candidate=1, wasted_tokens=0
    )
    assert alone.prefix_cached == pytest.approx(alone.naive)
    with pytest.raises(ValueError, match="0 candidates, 1 queries"):
        pair_flops(qwen_7b, count, candidates_of_query=0, queries_of_candidate=1)


def test_a_short_shared_prefix_causes_no_extra_waste(qwen_7b):
    count = TokenCount(tokens=100, shared_tokens=3, query_image_tokens=0, candidate_image_tokens=0)
    cost = pair_flops(qwen_7b, count, candidates_of_query=10**9, queries_of_candidate=1)
    assert cost.prefix_cached == pytest.approx(cost.naive)


def test_unknown_costs_are_none():
    assert shape_of(LlavaNextConfig()) is None
    assert (
        shape_of(Qwen2_5_VLConfig(text_config={"use_sliding_window": True, "max_window_layers": 2}))
        is None
    )
    assert shape_of(Qwen3VLConfig()) is not None


PIXELS = {"min_pixels": 3136, "max_pixels": 224 * 224, "max_tokens": 2048}
WIDE, TALL = (224, 112), (112, 224)
"""Whole windows of 112 pixels: of a window that an edge cuts, we count all."""

TOWERS = {
    "Qwen2VisionTransformerPretrainedModel",
    "Qwen2_5_VisionTransformerPretrainedModel",
    "Qwen3VLVisionModel",
}
"""The classes of the vision towers, by which the counter names their work."""


def attention_on_a_cpu(query, key, value, *_, **__):
    """The counter itself knows only the attention kernels of GPUs."""
    return sdpa_flop_count(query, key, value)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen2_vl", "qwen3_vl"])
@pytest.mark.parametrize(
    ("num_candidates", "order"), [(1, "query_first"), (4, "query_first"), (4, "candidate_first")]
)
def test_the_counted_operations_equal_those_of_the_backend(
    family, num_candidates, order, tiny_model, tmp_path
):
    """All work of the judge is counted, with its prefix cache: language model, vision tower and head.

    One number is corrected: the counter counts causal attention as a full square, and our formula counts the triangle.
    The judge is new, so it runs the tower once for each picture of the request, and R is 1.
    """
    folder = tiny_model if family == "qwen2_5_vl" else tmp_path / family
    if family != "qwen2_5_vl":
        MAKERS[family](folder)
    model = ModelSettings(name=str(folder), backend="transformers", **PIXELS)
    judge = open_judge(ServiceSettings(model=model, prompt=Prompt(order=order)))
    counter = counter_of(judge)
    query = Content(text="Which?", image=pattern(0, WIDE))
    candidates = [
        Content(text="seven apples", image=pattern(1 + seed, TALL))
        for seed in range(num_candidates)
    ]
    mapping = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention_on_a_cpu}
    with FlopCounterMode(display=False, custom_mapping=mapping) as run:
        judge._judge(Caller(), query, candidates)
    counts, shape = counter.count(query, candidates), counter.shape
    sharing = {
        "candidates_of_query": num_candidates,
        "queries_of_candidate": 1,
        "wasted_tokens": wasted_tokens_of("transformers"),
    }
    expected = sum(pair_flops(shape, count, **sharing).prefix_cached for count in counts)
    (shared,) = {count.shared_tokens for count in counts}
    parts = [shared, *(count.tokens - shared for count in counts)]
    squares = sum(n * (n - 1) / 2 for n in parts) * shape.attention_flops
    print(
        f"{family}, {num_candidates}: {run.get_total_flops():.5g} run, {expected + squares:.5g} expected"
    )
    assert run.get_total_flops() == pytest.approx(expected + squares, rel=1e-6)

    pictures = [
        counts[0].query_image_tokens,
        *(count.candidate_image_tokens for count in counts),
    ]
    towers = sum(vision_flops(shape.vision, tokens) for tokens in pictures)
    (ran,) = [
        sum(found.values()) for name, found in run.get_flop_counts().items() if name in TOWERS
    ]
    print(f"  of which the vision tower: {ran:.5g} run, {towers:.5g} expected")
    assert ran == pytest.approx(towers, rel=1e-6)
