"""A model's configuration → what it holds and what a token takes, for estimates of memory. No weights are read.

The model is built without memory (on torch's meta device), so every family is counted exactly, down to the last bias.
"""

from dataclasses import dataclass
from typing import Any

from unijudge.errors import ModelError
from unijudge.modeling.inputs import NO_CODE
from unijudge.modeling.weight_files import packing_of
from unijudge.storage.access_errors import in_one_line

FEWEST_BITS = 4
"""Of a packed weight where a configuration does not say it: an estimate that is too low refuses no model that fits."""
GROUP_BITS = 20 / 128
"""Of each weight for its group's scale and zero: 16 and 4 bits for each 128 weights, as AWQ and GPTQ have them."""


@dataclass(frozen=True)
class ModelSizes:
    """What estimates of memory need. Numbers count weights or activations, not bytes."""

    layer_weights: int
    """Of the language model's linear layers: what quantisation packs."""
    other_weights: int
    """Embeddings, head and vision tower."""
    width: int
    """Of a hidden state."""
    feed_forward: int
    """Of a layer's widest part."""
    vocabulary: int
    heads: int
    kv_heads: int
    """Heads of keys and values: no more GPUs than these share the cache."""
    cached_token_numbers: int
    """Keys and values of one token, in all layers."""
    visual_token_numbers: int
    """What the vision tower holds at once for each visual token."""
    quantisation: str
    """The configuration's `quant_method`, or `none`."""
    packed_bits: float
    """Of each of the layers' weights; 0 where they are not packed."""

    def weight_bytes(self, number_bytes: int) -> int:
        """All weights.

        Args:
            number_bytes: Of a weight that is not packed.
        """
        layers = self.layer_weights * (self.packed_bits / 8 if self.packed_bits else number_bytes)
        return int(layers + self.other_weights * number_bytes)


def sizes_of(config: Any) -> ModelSizes:
    """The sizes of a model by its configuration, of the Hugging Face kind.

    A visual token holds, for each of its patches, residual, norm, queries, keys and values, and the gate, up and
    product of the feed-forward part:  6 · width + 3 · feed-forward.
    """
    import torch
    import transformers

    with torch.device("meta"):
        model = transformers.AutoModelForImageTextToText.from_config(config)
    layer_weights = sum(
        module.weight.numel()
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and "language_model." in name
    )
    text, vision = config.get_text_config(), config.vision_config
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    vision_width = getattr(vision, "embed_dim", None) or vision.hidden_size
    vision_feed_forward = getattr(vision, "intermediate_size", None) or int(vision_width * vision.mlp_ratio)
    patches = getattr(vision, "spatial_merge_size", None) or round(1 / getattr(config, "downsample_ratio", 1))
    quantisation, packed_bits = _packing(getattr(config, "quantization_config", None))
    return ModelSizes(
        layer_weights=layer_weights,
        other_weights=sum(parameter.numel() for parameter in model.parameters()) - layer_weights,
        width=text.hidden_size,
        feed_forward=text.intermediate_size,
        vocabulary=text.vocab_size,
        heads=text.num_attention_heads,
        kv_heads=text.num_key_value_heads,
        cached_token_numbers=2 * text.num_hidden_layers * text.num_key_value_heads * head,
        visual_token_numbers=patches**2 * (6 * vision_width + 3 * vision_feed_forward),
        quantisation=quantisation,
        packed_bits=packed_bits,
    )


def load_sizes(name: str, revision: str | None) -> ModelSizes:
    """The sizes of a model on disk or on a hub; only its configuration is read.

    Raises:
        ModelError: The configuration cannot be read, or is not of a model with a vision tower.
    """
    import transformers

    try:
        return sizes_of(transformers.AutoConfig.from_pretrained(name, revision=revision, **NO_CODE))
    except Exception as error:  # other people's configurations fail in transformers in many ways
        raise ModelError(
            f"{name}: its configuration cannot be used ({in_one_line(error)}). Check model.name"
        ) from error


def quantisation_of(config: Any) -> str:
    """How a model's weights are packed: the `quant_method` of its configuration, or `none`."""
    return packing_of(getattr(config, "quantization_config", None))


def _packing(config: Any) -> tuple[str, float]:
    """The method, and the bits of a weight with its share of scales and zeros."""
    if config is None:
        return "none", 0.0
    fields = config if isinstance(config, dict) else config.to_dict()
    method = packing_of(config)
    return method, _weight_bits(method, fields) + (GROUP_BITS if method in ("awq", "gptq") else 0.0)


def _weight_bits(method: str, fields: dict[str, Any]) -> float:
    """Of one weight, as the configurations of AWQ, GPTQ, FP8, compressed-tensors and ModelOpt say it."""
    groups = fields.get("config_groups") or {}
    of_groups = [group["weights"]["num_bits"] for group in groups.values() if group.get("weights")]
    said = fields.get("bits") or fields.get("w_bit") or (max(of_groups) if of_groups else None)
    if said is not None:
        return float(said)
    is_fp8 = "fp8" in f"{method} {fields.get('quant_algo', '')}".lower()
    return 8.0 if is_fp8 else float(FEWEST_BITS)
