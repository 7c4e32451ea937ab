"""The cost of a pair in floating-point operations, computed from token counts and a model's shape.

Matrix products are counted, with two operations for a multiply-add. Norms, rotations, softmax and the scaling of
pictures are ignored: they are a fraction of a percent. Seconds cannot be derived from these numbers; they are measured
by scoring a few pairs.

Letters: K candidates of one query · R queries of one candidate · V visual tokens of a picture.
"""

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

WASTED_TOKENS = 8
"""Shared tokens that are computed again for each candidate: vLLM caches whole blocks of 16, and on average half a block
is lost."""


class VisionShape(BaseModel):
    """The cost of a picture in the vision tower, as a function of its visual tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    patches_per_token: int = Field(gt=0)
    """Patches of the tower that become one token of the language model."""
    linear_flops: int = Field(gt=0)
    """Operations for each visual token: its patches through the tower's layers, and the merging of the patches."""
    attention_flops: int = Field(ge=0)
    """Operations for each (patch, patch) of a picture, in the layers with full attention."""
    window_flops: int = Field(ge=0)
    """Operations for each (patch, patch) of a window, in the layers with windows."""
    window_patches: int = Field(ge=0)
    """Patches of a whole window; 0 if no layer has windows."""


class ModelShape(BaseModel):
    """The cost of a token. It is derived from a model's configuration, never measured."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    linear_flops: int = Field(gt=0)
    """Operations for each token, in the language model's layers."""
    attention_flops: int = Field(gt=0)
    """Operations for each pair of a token and a token that it attends to, in the language model's layers."""
    head_flops: int = Field(gt=0)
    """Operations for each scored position, over the whole vocabulary."""
    vision: VisionShape


class TokenCount(BaseModel):
    """The length of a pair's prompt, as the judge runs it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tokens: int = Field(gt=0)
    """Tokens of the whole prompt, including the tokens of pictures."""
    shared_tokens: int = Field(ge=0)
    """Tokens of the prefix that all candidates of a request share, which is computed once. 0 for a single candidate."""
    query_image_tokens: int = Field(ge=0)
    """Tokens of the query's picture; 0 without a picture."""
    candidate_image_tokens: int = Field(ge=0)
    """Tokens of the candidate's picture; 0 without a picture."""


@dataclass(frozen=True)
class PairFlops:
    """The cost of a pair under three kinds of caching, in FLOPs."""

    naive: float
    """The cost without caching."""
    vision_cached: float
    """The cost if each picture is computed once."""
    prefix_cached: float
    """The cost if a query's candidates share their prefix, and each picture that the engine caches is computed once."""


def wasted_tokens_of(backend: str) -> int:
    """Returns how many tokens of a cached prefix an engine computes again for each candidate.

    vLLM caches prefixes in blocks, so half a block is computed again on average. The transformers backend caches a
    prefix to the exact token.

    Args:
        backend: The backend in the judge's identity.

    Example:
        >>> wasted_tokens_of("transformers")
        0
    """
    return 0 if backend == "transformers" else WASTED_TOKENS


def text_flops(shape: ModelShape, new: int, cached: int) -> float:
    """Returns the cost of `new` tokens after `cached` tokens in the language model, without the head.

    A token attends to itself and all tokens before it, so

        FLOPs = linear · n + attention · (n · p + n · (n + 1) / 2),   n new, p cached.

    Args:
        shape: The shape of the model.
        new: The number of tokens to compute, at least 0.
        cached: The number of earlier tokens whose keys and values are cached, at least 0.

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
    """Returns the cost of a picture in the vision tower.

        FLOPs = linear · V + P · (attention · P + window · min(P, W)),   P = V · patches a token, W a window's patches.

    A window that the picture's edge cuts counts as a whole window. For Qwen2.5-VL's tower, this overestimates by less
    than 1 %.

    Args:
        shape: The shape of the tower.
        visual_tokens: V, the visual tokens of the picture; 0 without a picture.

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
) -> PairFlops:
    """Returns the cost of a pair whose query has K candidates and whose candidate has R queries.

        naive          LM(t, 0) + ViT(q) + ViT(c) + head
        vision cached  LM(t, 0) + ViT(q) / K + ViT(c) / R + head
        prefix cached  LM(s, 0) / K + LM(t − s + w, s − w) + ViT(q) / K + ViT(c) / R + head

    t is the number of tokens in the prompt, s the number of tokens that the query's candidates share, and w the part of
    s that is computed again for each candidate. LM is `text_flops`, and ViT is `vision_flops`. If the prompt puts the
    candidate first, s is small.

    Args:
        shape: The shape of the model.
        count: The token counts of the pair.
        candidates_of_query: K, the number of candidates that are judged together, at least 1. An average may be a
            fraction.
        queries_of_candidate: R, the number of queries that use the candidate while its picture is cached, at least 1.
            Without a cached picture, R is 1.
        wasted_tokens: w, half a block of the prefix cache; 0 for the transformers backend, which has no blocks.

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
        raise ValueError(
            f"{candidates_of_query} candidates, {queries_of_candidate} queries: each must be at least 1"
        )
    query = vision_flops(shape.vision, count.query_image_tokens)
    candidate = vision_flops(shape.vision, count.candidate_image_tokens)
    pictures = query / candidates_of_query + candidate / queries_of_candidate
    once = pictures + shape.head_flops
    whole = text_flops(shape, count.tokens, 0)
    cached = max(0, count.shared_tokens - wasted_tokens)
    prefix = text_flops(shape, count.shared_tokens, 0) / candidates_of_query
    return PairFlops(
        naive=whole + query + candidate + shape.head_flops,
        vision_cached=whole + once,
        prefix_cached=prefix + text_flops(shape, count.tokens - cached, cached) + once,
    )
