"""Builds tiny models of other families than Qwen2.5-VL, with random weights and real processors.

The language model has the layers and the width of the demo's Qwen2.5-VL, and the same words are single tokens. The
vision tower, its connection to the language model, the tokens of a picture and the positions are those of the family.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PreTrainedTokenizerFast
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from demo.tiny_model import (
    CHAT_TEMPLATE,
    QWEN_PICTURE,
    PictureTokens,
    build_model,
    make_tokenizer,
)

PATCH = 14
"""Width and height of a patch, in pixels. All three families use this size."""
QWEN_MARKS = "<|vision_start|><|image_pad|><|vision_end|>"
"""What Qwen's chat template writes for a picture."""


@dataclass(frozen=True)
class TinyModel:
    """A tiny model, and what is needed to write prompts for it and to save it."""

    model: Any
    tokenizer: PreTrainedTokenizerFast
    processor: Any
    """The processor that the family reads: the image processor of Qwen2.5-VL, or the whole processor of others."""
    picture: PictureTokens

    def save(self, folder: Path) -> None:
        """Writes a folder that transformers can load."""
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        self.processor.save_pretrained(folder)


@dataclass(frozen=True)
class Shape:
    """The sizes of a tiny model."""

    text: dict[str, Any]
    """Keys of the language model's configuration, with names that all families share."""
    depth: int
    """Number of layers of the vision tower."""
    width: int
    """Width of the vision tower."""
    inner: int
    """Width of the vision tower's feed-forward layers."""
    heads: int
    """Number of attention heads of the vision tower."""
    spread: float
    """Standard deviation of the random weights."""
    rope_theta: float
    side: int
    """Width and height of every picture, in pixels."""


def qwen2_5_vl(shape: Shape, seed: int) -> TinyModel:
    """Returns a Qwen2.5-VL: one token for each square of 2 × 2 patches, with a row and a column as position."""
    tokenizer = make_tokenizer()
    vision = {
        "depth": shape.depth,
        "hidden_size": shape.width,
        "intermediate_size": shape.inner,
        "num_heads": shape.heads,
        "fullatt_block_indexes": [shape.depth - 1],
        "initializer_range": shape.spread,
    }
    text = shape.text | {"initializer_range": shape.spread}
    model = build_model(tokenizer, text, vision, seed=seed, rope_theta=shape.rope_theta, tied=True)
    pixels = shape.side**2
    processor = Qwen2VLImageProcessorPil(min_pixels=pixels, max_pixels=pixels)
    return TinyModel(model, tokenizer, processor, QWEN_PICTURE)


def internvl(shape: Shape, seed: int) -> TinyModel:
    """Returns an InternVL: a single tile, whose 2 × 2 patches become one token each, with positions as in text."""
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
    from transformers.models.internvl.video_processing_internvl import InternVLVideoProcessor

    names = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    template = CHAT_TEMPLATE.replace(QWEN_MARKS, "<IMG_CONTEXT>\n")
    tokenizer = _tokenizer(template, names)
    tokens = (shape.side // PATCH // 2) ** 2
    config = transformers.InternVLConfig(
        vision_config=_tower(shape)
        | {"image_size": [shape.side, shape.side], "patch_size": [PATCH, PATCH]},
        text_config=_text(shape, tokenizer),
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=tokens,
        downsample_ratio=0.5,
        tie_word_embeddings=True,
    )
    size = {"height": shape.side, "width": shape.side}
    processor = transformers.InternVLProcessor(
        image_processor=GotOcr2ImageProcessorPil(
            size=size, crop_to_patches=True, min_patches=1, max_patches=1
        ),
        tokenizer=tokenizer,
        video_processor=InternVLVideoProcessor(size=size),
        image_seq_length=tokens,
        chat_template=template,
    )
    model = _model(transformers.InternVLForConditionalGeneration, config, seed)
    return TinyModel(model, tokenizer, processor, PictureTokens("<IMG_CONTEXT>", ()))


def llava_onevision(shape: Shape, seed: int) -> TinyModel:
    """Returns a LLaVA-OneVision: an overview and one tile, one token for each patch, with positions as in text."""
    from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
        LlavaOnevisionImageProcessorPil,
    )
    from transformers.models.llava_onevision.video_processing_llava_onevision import (
        LlavaOnevisionVideoProcessor,
    )

    names = {"image_token": "<image>", "video_token": "<video>"}
    template = CHAT_TEMPLATE.replace(QWEN_MARKS, "<image>\n")
    tokenizer = _tokenizer(template, names)
    tiles = [[shape.side, shape.side]]
    config = transformers.LlavaOnevisionConfig(
        vision_config=_tower(shape)
        | {"model_type": "siglip_vision_model", "vision_use_head": False},
        text_config=_text(shape, tokenizer),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=tiles,
        tie_word_embeddings=True,
    )
    size = {"height": shape.side, "width": shape.side}
    processor = transformers.LlavaOnevisionProcessor(
        image_processor=LlavaOnevisionImageProcessorPil(size=size, image_grid_pinpoints=tiles),
        tokenizer=tokenizer,
        video_processor=LlavaOnevisionVideoProcessor(size=size),
        num_image_tokens=(shape.side // PATCH) ** 2,
        vision_feature_select_strategy="full",
        chat_template=template,
    )
    model = _model(transformers.LlavaOnevisionForConditionalGeneration, config, seed)
    return TinyModel(model, tokenizer, processor, PictureTokens("<image>", ()))


BUILDERS: dict[str, Callable[[Shape, int], TinyModel]] = {
    builder.__name__: builder for builder in (qwen2_5_vl, internvl, llava_onevision)
}
"""`model_type` → a function of the sizes and the seed."""


def _tower(shape: Shape) -> dict[str, Any]:
    """Returns the configuration of a vision transformer with the given sizes."""
    return {
        "hidden_size": shape.width,
        "intermediate_size": shape.inner,
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.depth,
        "patch_size": PATCH,
        "image_size": shape.side,
        "initializer_range": shape.spread,
    }


def _text(shape: Shape, tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """Returns the configuration of a Qwen2 language model with the given sizes."""
    own = {
        "model_type": "qwen2",
        "vocab_size": (len(tokenizer) + 63) // 64 * 64,
        "num_key_value_heads": 2,
        "max_position_embeddings": 16384,
        "rope_parameters": {"rope_type": "default", "rope_theta": shape.rope_theta},
        "bos_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "initializer_range": shape.spread,
        "tie_word_embeddings": True,
    }
    return own | shape.text


def _tokenizer(template: str, names: dict[str, str]) -> PreTrainedTokenizerFast:
    """Returns the demo's tokenizer with more control tokens and another chat template."""
    backend = make_tokenizer().backend_tokenizer
    backend.add_special_tokens(list(names.values()))
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=template,
        model_max_length=8192,
        extra_special_tokens=names,
    )


def _model(kind: Any, config: Any, seed: int) -> Any:
    torch.manual_seed(seed)
    return kind(config).float()
