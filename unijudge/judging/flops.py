"""What a pair costs in floating-point operations: arithmetic on token counts, for a model whose shape is known.

Products of matrices are counted, two operations for a multiply-add. Norms, rotations, softmax and the scaling of
pictures are not: a fraction of a percent. It says nothing about seconds: those are measured, by scoring a few pairs.

Letters: K candidates of one query · R queries of one candidate · V visual tokens of a picture.
"""

from dataclasses import dataclass
from typing import TypedDict

from pydantic import BaseModel, ConfigDict, Field

WASTED_TOKENS = 8
"""Prefixes are cached in whole blocks: of a block of 16, vLLM's on a GPU, half is computed anew for each candidate."""


class VisionShape(BaseModel):
    """What a picture costs in the vision tower, as a function of its visual tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    patches_per_token: int = Field(gt=0)
    """Patches of the tower that become one token of the language model."""
    linear_flops: int = Field(gt=0)
    """For each visual token: its patches through the tower's layers, and what merges them."""
    attention_flops: int = Field(ge=0)
    """For each (patch, patch) of a picture, in the layers that see all of it."""
    window_flops: int = Field(ge=0)
    """For each (patch, patch) of a window, in the layers that see windows."""
    window_patches: int = Field(ge=0)
    """Patches of a whole window; 0 where no layer has windows."""


class ModelShape(BaseModel):
    """What a token costs. Derived from a model's configuration, never measured."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    linear_flops: int = Field(gt=0)
    """For each token, in the language model's layers."""
    attention_flops: int = Field(gt=0)
    """For each (token, token that it sees), in the language model's layers."""
    head_flops: int = Field(gt=0)
    """For each position that is scored, over the whole vocabulary."""
    vision: VisionShape


class TokenCount(BaseModel):
    """How long the prompt of one pair is, as the judge runs it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tokens: int = Field(gt=0)
    """Of the whole prompt, those of pictures included."""
    shared_tokens: int = Field(ge=0)
    """Of the beginning that all candidates of the request share: computed once for them. 0 for one alone."""
    query_image_tokens: int = Field(ge=0)
    """Of the query's picture; 0 without one."""
    candidate_image_tokens: int = Field(ge=0)
    """Of the candidate's picture; 0 without one."""


@dataclass(frozen=True)
class PairFlops:
    """What one pair costs, by what is computed once for several."""

    naive: float
    """Nothing is."""
    vision_cached: float
    """Each picture is."""
    prefix_cached: float
    """Each picture is that the engine keeps, and the beginning that a query's candidates share."""


class Sharing(TypedDict):
    """What an engine computes once: arguments of `pair_flops`."""

    wasted_tokens: int
    query_picture_once: bool


def sharing_of(backend: str, order: str) -> Sharing:
    """What is computed once by a judge's engine.

    vLLM keeps a picture's features, and its prefixes in blocks. transformers keeps the prefix to the token, and nothing
    else: a query's picture after the candidate goes through the tower once for each candidate.

    Args:
        backend: Of the judge's identity.
        order: Of its prompt: `query_first` or `candidate_first`.

    Example:
        >>> sharing_of("transformers", "candidate_first")
        {'wasted_tokens': 0, 'query_picture_once': False}
    """
    if backend != "transformers":
        return {"wasted_tokens": WASTED_TOKENS, "query_picture_once": True}
    return {"wasted_tokens": 0, "query_picture_once": order == "query_first"}


def text_flops(shape: ModelShape, new: int, cached: int) -> float:
    """What the language model computes for `new` tokens after `cached` ones, without the head.

    A token sees those before it and itself, so

        FLOPs = linear · n + attention · (n · p + n · (n + 1) / 2),   n new, p cached.

    Args:
        shape: Of the model.
        new: Tokens to compute, at least 0.
        cached: Tokens before them whose keys and values are kept, at least 0.

    Returns:
        FLOPs, at least 0.

    Example:
        >>> vision = VisionShape(
        ...     patches_per_token=4, linear_flops=100, attention_flops=1, window_flops=0, window_patches=0
        ... )
        >>> shape = ModelShape(linear_flops=1000, attention_flops=10, head_flops=50, vision=vision)
        >>> text_flops(shape, 2, 3)
        2090.0
    """
    return shape.linear_flops * new + shape.attention_flops * (new * cached + new * (new + 1) / 2)


def vision_flops(shape: VisionShape, visual_tokens: int) -> float:
    """What the vision tower computes for a picture.

        FLOPs = linear · V + P · (attention · P + window · min(P, W)),   P = V · patches a token, W a window's patches.

    Windows that a picture's edge cuts count as whole ones: at most too much, by less than 1 % of a Qwen2.5-VL's tower.

    Args:
        shape: Of the tower.
        visual_tokens: V, of the picture in the prompt; 0 without a picture.

    Returns:
        FLOPs, at least 0.

    Example:
        >>> vision = VisionShape(
        ...     patches_per_token=4, linear_flops=100, attention_flops=1, window_flops=3, window_patches=2
        ... )
        >>> vision_flops(vision, 1), vision_flops(vision, 0)
        (140, 0)
    """
    patches = visual_tokens * shape.patches_per_token
    seen = shape.attention_flops * patches + shape.window_flops * min(patches, shape.window_patches)
    return shape.linear_flops * visual_tokens + patches * seen


def pair_flops(
    shape: ModelShape,
    count: TokenCount,
    *,
    candidates_of_query: float,
    queries_of_candidate: float,
    wasted_tokens: int = WASTED_TOKENS,
    query_picture_once: bool = True,
) -> PairFlops:
    """What one pair costs, where its query has K candidates and its candidate R queries.

        naive          LM(t, 0) + ViT(q) + ViT(c) + head
        vision cached  LM(t, 0) + ViT(q) / K + ViT(c) / R + head
        prefix cached  LM(s, 0) / K + LM(t − s + w, s − w) + ViT(q) / K + ViT(c) / R + head

    t are the prompt's tokens, s those that the query's candidates share, w those of s that are computed anew
    nevertheless; LM is `text_flops`, ViT `vision_flops`. Where the prompt puts the candidate first, s is short, and the
    formula says so.

    Args:
        shape: Of the model.
        count: Of the pair.
        candidates_of_query: K, as many as are judged together; an average may be a fraction. At least 1.
        queries_of_candidate: R, as many as ask for it while its picture is still cached; 1 where it is not. At least 1.
        wasted_tokens: w: half a block of the prefix cache; 0 on the transformers backend, which has no blocks.
        query_picture_once: Whether the engine runs the tower once for a query's picture and all its candidates. If not,
            ViT(q) is not divided by K in the third sum.

    Returns:
        Three sums in FLOPs, each greater than 0.

    Raises:
        ValueError: K or R is less than 1.

    Example:
        >>> vision = VisionShape(
        ...     patches_per_token=4, linear_flops=100, attention_flops=1, window_flops=0, window_patches=0
        ... )
        >>> shape = ModelShape(linear_flops=1000, attention_flops=10, head_flops=50, vision=vision)
        >>> count = TokenCount(tokens=20, shared_tokens=16, query_image_tokens=0, candidate_image_tokens=1)
        >>> pair_flops(shape, count, candidates_of_query=16, queries_of_candidate=1)
        PairFlops(naive=22266.0, vision_cached=22266.0, prefix_cached=14991.0)

    Source:
        Prefix and vision reuse as in vLLM; the constants of Qwen2.5-VL-7B are checked in a test.
    """
    if candidates_of_query < 1 or queries_of_candidate < 1:
        raise ValueError(f"{candidates_of_query} candidates of a query, {queries_of_candidate} queries of a candidate")
    query = vision_flops(shape.vision, count.query_image_tokens)
    candidate = vision_flops(shape.vision, count.candidate_image_tokens)
    candidate_once = candidate / queries_of_candidate + shape.head_flops
    once = query / candidates_of_query + candidate_once
    run = once if query_picture_once else query + candidate_once
    whole = text_flops(shape, count.tokens, 0)
    cached = max(0, count.shared_tokens - wasted_tokens)
    prefix = text_flops(shape, count.shared_tokens, 0) / candidates_of_query
    return PairFlops(
        naive=whole + query + candidate + shape.head_flops,
        vision_cached=whole + once,
        prefix_cached=prefix + text_flops(shape, count.tokens - cached, cached) + run,
    )
