"""A model's configuration → the cost of its tokens (`judging.flops`), for Qwen2-VL, Qwen2.5-VL and Qwen3-VL.

A test counts the operations of each family. Other families get no cost, since a guess would look like a measurement.
"""

from collections.abc import Callable
from typing import Any

from unijudge.judging.flops import ModelShape, VisionShape


def shape_of(config: Any) -> ModelShape | None:
    """Returns the shape of a model from its Hugging Face configuration.

    Returns:
        The shape. None for a family with an unknown vision tower, and for a language model with windowed attention.
    """
    tower = _TOWERS.get(config.model_type)
    text = config.get_text_config()
    if tower is None or set(getattr(text, "layer_types", None) or ()) - {"full_attention"}:
        return None
    width, layers, heads = text.hidden_size, text.num_hidden_layers, text.num_attention_heads
    head = getattr(text, "head_dim", None) or width // heads
    # Query and output, key and value.
    attention = 2 * width * heads * head + 2 * width * text.num_key_value_heads * head
    return ModelShape(
        linear_flops=2 * layers * (attention + 3 * width * text.intermediate_size),
        attention_flops=4 * layers * heads * head,
        head_flops=2 * width * text.vocab_size,
        vision=tower(config.vision_config),
    )


def _qwen2_vl(vision: Any) -> VisionShape:
    width = vision.embed_dim
    return _tower(
        vision,
        width,
        feedforward=2 * width * int(width * vision.mlp_ratio),
        merged_width=vision.hidden_size,
    )


def _qwen2_5_vl(vision: Any) -> VisionShape:
    return _tower(
        vision,
        vision.hidden_size,
        feedforward=3 * vision.hidden_size * vision.intermediate_size,
        merged_width=vision.out_hidden_size,
        windowed=vision.depth - len(set(vision.fullatt_block_indexes) & set(range(vision.depth))),
    )


def _qwen3_vl(vision: Any) -> VisionShape:
    return _tower(
        vision,
        vision.hidden_size,
        feedforward=2 * vision.hidden_size * vision.intermediate_size,
        merged_width=vision.out_hidden_size,
        mergers=1 + len(vision.deepstack_visual_indexes),
    )


def _tower(
    vision: Any,
    width: int,
    *,
    feedforward: int,
    merged_width: int,
    mergers: int = 1,
    windowed: int = 0,
) -> VisionShape:
    """Returns the cost of a vision tower, by the formulas that all three families share.

    Args:
        vision: The configuration of the tower.
        width: The width of a patch.
        feedforward: The weights of a layer's feed-forward part.
        merged_width: The width of a visual token.
        mergers: The number of modules that merge patches into tokens.
        windowed: The number of layers with windowed attention.
    """
    merge = vision.spatial_merge_size
    patches = merge**2
    embedding = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2 * width
    layers = vision.depth * (4 * width**2 + feedforward)
    joined = patches * width
    merging = mergers * (joined**2 + joined * merged_width)
    side = vision.window_size // merge // vision.patch_size * merge if windowed else 0
    return VisionShape(
        patches_per_token=patches,
        linear_flops=2 * (patches * (embedding + layers) + merging),
        attention_flops=4 * width * (vision.depth - windowed),
        window_flops=4 * width * windowed,
        window_patches=side**2,
    )


_TOWERS: dict[str, Callable[[Any], VisionShape]] = {
    "qwen2_vl": _qwen2_vl,
    "qwen2_5_vl": _qwen2_5_vl,
    "qwen3_vl": _qwen3_vl,
}
