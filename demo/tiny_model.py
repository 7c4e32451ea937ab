"""Writes a tiny Qwen2.5-VL with random weights, a real tokenizer and a real image processor, in seconds.

    python -m demo.tiny_model FOLDER

The model is untrained, so its scores and embeddings mean nothing. The same code runs this model and a 7B model.
"""

import random
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from demo.world import WORLD
from unijudge.judging.prompt import Prompt

CONTROL_TOKENS = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
]  # fmt: skip
# Qwen's tokenizers also have these tokens. They are not "special", so the usual switch does not keep them out of text.
PLAIN_ADDED_TOKENS = [
    "<tool_call>",
    "</tool_call>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
]
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}<|im_start|>system\n"
    "You are a helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class PictureTokens:
    """The tokens of a picture in the prompts of a family."""

    placeholder: str
    """The token that the chat template writes for a picture."""
    around: tuple[str, ...]
    """The tokens before and after a picture that the picture itself does not have: two, or none."""


QWEN_PICTURE = PictureTokens("<|image_pad|>", ("<|vision_start|>", "<|vision_end|>"))
_DICE = random.Random(0)
_SCENES = [WORLD.scene(_DICE) for _ in range(300)]
_CAPTIONS = [(WORLD.caption(scene, _DICE), WORLD.long_caption(scene, _DICE)) for scene in _SCENES]
SENTENCES = [caption.text for both in _CAPTIONS for caption in both]
"""Sentences that contain every word of the world, so that each word becomes one token."""
WORDS = [
    *SENTENCES, Prompt().instruction, "Query:", "Candidate:", "Yes", "No", "system user assistant\n",
    "You are a helpful assistant.",
    "Which digit is shown in the image?\n", "Find an image that shows the same digit.\n",
    "Represent the given image.\n", "Find an image that matches the given caption: ",
    "Find a caption that describes the given image.\n", "Describe the image.",
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
]  # fmt: skip


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Returns a byte-level BPE as in Qwen, with its control tokens and chat template. Yes and No are one token each."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        WORDS * 20,
        trainers.BpeTrainer(vocab_size=620, initial_alphabet=alphabet, show_progress=False),
    )
    bpe.add_special_tokens(CONTROL_TOKENS)
    bpe.add_tokens([AddedToken(token, normalized=False) for token in PLAIN_ADDED_TOKENS])
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=CHAT_TEMPLATE,
        model_max_length=8192,
    )


def make_model(
    folder: Path,
    *,
    seed: int = 0,
    width: int = 128,
    layers: int = 3,
    vision_width: int = 64,
    vision_layers: int = 2,
) -> None:
    """Writes an untrained model, with 0.8 million parameters by default.

    Args:
        folder: The output folder.
        seed: Seed of the random weights.
        width: Width of the language model; a multiple of 32.
        layers: Number of layers of the language model.
        vision_width: Width of the vision tower; a multiple of 32.
        vision_layers: Number of layers of the vision tower.
    """
    tokenizer = make_tokenizer()
    text = {
        "hidden_size": width,
        "intermediate_size": 2 * width if width < 512 else 3 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": width // 32,
        "initializer_range": 0.08
        * (128 / width) ** 0.5,  # spreads untrained scores over most of (0, 1)
    }
    vision = {
        "depth": vision_layers,
        "hidden_size": vision_width,
        "intermediate_size": 2 * vision_width,
        "num_heads": vision_width // 16,
        "fullatt_block_indexes": [vision_layers - 1],
        "initializer_range": 0.08,
    }
    model = build_model(tokenizer, text, vision, seed=seed, rope_theta=1e4, tied=False)
    save_model(folder, model, tokenizer)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{folder}: Qwen2.5-VL, {parameters / 1e6:.2f} M parameters, seed {seed}, untrained")


def build_model(
    tokenizer: PreTrainedTokenizerFast,
    text: dict[str, Any],
    vision: dict[str, Any],
    *,
    seed: int,
    rope_theta: float,
    tied: bool,
) -> Qwen2_5_VLForConditionalGeneration:
    """Returns a Qwen2.5-VL with random weights. `text` and `vision` are parts of its configuration."""
    ids = tokenizer.convert_tokens_to_ids
    config = Qwen2_5_VLConfig(
        architectures=["Qwen2_5_VLForConditionalGeneration"],
        text_config={
            "vocab_size": (len(tokenizer) + 63) // 64 * 64,
            "num_key_value_heads": 2,
            "max_position_embeddings": 16384,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": rope_theta,
                "mrope_section": [4, 6, 6],
            },
            "bos_token_id": ids("<|endoftext|>"),
            "eos_token_id": ids("<|im_end|>"),
            "pad_token_id": ids("<|endoftext|>"),
        }
        | text,
        vision_config={"out_hidden_size": text["hidden_size"], "window_size": 112} | vision,
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
        tie_word_embeddings=tied,
    )
    torch.manual_seed(seed)
    return Qwen2_5_VLForConditionalGeneration(config).float()


def save_model(
    folder: Path,
    model: Qwen2_5_VLForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    side: int = 56,
) -> None:
    """Writes a folder that transformers, PEFT and vLLM can load. Images are scaled to `side`² pixels."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    Qwen2VLImageProcessorPil(min_pixels=side * side, max_pixels=side * side).save_pretrained(folder)


if __name__ == "__main__":
    make_model(Path(sys.argv[1]))
