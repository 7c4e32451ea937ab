"""A model's configuration → its sizes, for estimates of memory. No weights are read.

The model is built on torch's meta device, which allocates no memory, so the count is exact for every family.
"""

from dataclasses import dataclass, replace
from typing import Any

from unijudge.errors import ModelError
from unijudge.modeling.model_source import NO_CODE
from unijudge.modeling.weight_files import packing_of
from unijudge.storage.access_errors import in_one_line

FEWEST_BITS = 4
"""Bits of a packed weight if the configuration does not name them. A low estimate rejects no model that would fit."""
ONLINE_BITS = {"fp8": 8.0, "bitsandbytes": 4.5}
"""Bits of a packed weight if vLLM quantises weights of 16 or 32 bits at the start. bitsandbytes adds half a bit of
scales."""
GROUP_BITS = 20 / 128
"""Additional bits of a packed weight in AWQ and GPTQ: 16 for a scale and 4 for a zero point, for each 128 weights."""


@dataclass(frozen=True)
class ModelSizes:
    """The sizes of a model for estimates of memory. The unit is weights or activations, not bytes."""

    layer_weights: int
    """The weights of the language model's linear layers. Quantisation packs only these weights."""
    other_weights: int
    """The weights of embeddings, head and vision tower."""
    width: int
    """The width of a hidden state."""
    feed_forward: int
    """The width of the feed-forward part of a layer."""
    vocabulary: int
    heads: int
    kv_heads: int
    """The number of heads of keys and values, which is the largest number of GPUs that can split the cache."""
    cached_token_numbers: int
    """The keys and values of one token, in all layers."""
    visual_token_numbers: int
    """The activations that the vision tower keeps at the same time, for each visual token."""
    quantisation: str
    """The configuration's `quant_method`, or `none`."""
    packed_bits: float
    """The bits of a packed weight of the layers. 0 if the weights are not packed."""

    def quantised(self, method: str | None) -> "ModelSizes":
        """Returns the sizes after vLLM has quantised the weights while it loads them.

        Args:
            method: vLLM's argument `quantization`. A method without a known number of bits changes nothing.
        """
        bits = ONLINE_BITS.get(method or "")
        if bits is None or self.packed_bits:
            return self
        return replace(self, quantisation=str(method), packed_bits=bits)

    def weight_bytes(self, number_bytes: int) -> int:
        """Returns the bytes of all weights.

        Args:
            number_bytes: The bytes of a weight that is not packed.
        """
        layers = self.layer_weights * (self.packed_bits / 8 if self.packed_bits else number_bytes)
        return int(layers + self.other_weights * number_bytes)


def sizes_of(config: Any) -> ModelSizes:
    """Returns the sizes of a model from its Hugging Face configuration.

    For each patch of a visual token, the tower keeps residual, norm, queries, keys and values, and the gate, up and
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

    # Each family has its own names for the sizes of the vision tower.
    text, vision = config.get_text_config(), config.vision_config
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    vision_width = getattr(vision, "embed_dim", None) or vision.hidden_size
    vision_feed_forward = getattr(vision, "intermediate_size", None) or int(
        vision_width * vision.mlp_ratio
    )
    patches = getattr(vision, "spatial_merge_size", None) or round(
        1 / getattr(config, "downsample_ratio", 1)
    )

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
    """Returns the sizes of a model on disk or on a hub. Only the configuration of the model is read.

    Raises:
        ModelError: The configuration cannot be read, or the model has no vision tower.
    """
    import transformers

    try:
        return sizes_of(transformers.AutoConfig.from_pretrained(name, revision=revision, **NO_CODE))
    except Exception as error:
        # transformers raises many kinds of errors for invalid configurations.
        raise ModelError(
            f"{name}: the configuration of the model cannot be used ({in_one_line(error)}). Check model.name"
        ) from error


def quantisation_of(config: Any) -> str:
    """Returns the `quant_method` of a model's configuration, or `none`."""
    return packing_of(getattr(config, "quantization_config", None))


def _packing(config: Any) -> tuple[str, float]:
    """Returns the method, and the bits of a weight including its share of scales and zero points."""
    if config is None:
        return "none", 0.0
    fields = config if isinstance(config, dict) else config.to_dict()
    method = packing_of(config)
    bits = _weight_bits(method, fields)
    if method in ("awq", "gptq"):
        bits += GROUP_BITS
    return method, bits


def _weight_bits(method: str, fields: dict[str, Any]) -> float:
    """Returns the bits of a weight, from a configuration of AWQ, GPTQ, FP8, compressed-tensors or ModelOpt."""
    # AWQ and GPTQ have a single field.
    if bits := fields.get("bits") or fields.get("w_bit"):
        return float(bits)

    # compressed-tensors has a field for each group of layers.
    groups = fields.get("config_groups") or {}
    bits_of_groups = [
        group["weights"]["num_bits"] for group in groups.values() if group.get("weights")
    ]
    if bits_of_groups:
        return float(max(bits_of_groups))

    # Configurations of FP8 only have the name of the method.
    is_fp8 = "fp8" in f"{method} {fields.get('quant_algo', '')}".lower()
    return 8.0 if is_fp8 else float(FEWEST_BITS)
