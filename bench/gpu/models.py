"""Creates models with published shapes and random weights, once for all steps that need them."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.gpu.options import Options
from bench.gpu.step import Case, Figures, Outcome, Skipped, Step, Table, number

ROPE = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}
TOWER = {
    "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16,
    "fullatt_block_indexes": [7, 15, 23, 31],
}  # fmt: skip
JUDGES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "3b": (
        {
            "hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36, "num_attention_heads": 16,
            "num_key_value_heads": 2, "vocab_size": 151936, "rope_parameters": ROPE,
        },
        TOWER,
    ),
    "7b": (
        {
            "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
            "num_key_value_heads": 4, "vocab_size": 152064, "rope_parameters": ROPE,
        },
        TOWER,
    ),
    "tiny": (
        {
            "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 3, "num_attention_heads": 4,
            "vocab_size": 2048,
        },
        {"depth": 2, "hidden_size": 64, "intermediate_size": 128, "num_heads": 4, "fullatt_block_indexes": [1]},
    ),
}  # fmt: skip
"""Language model and vision tower of Qwen2.5-VL-3B and 7B, from their published configurations."""
STUDENTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "3b": (
        {
            "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12,
            "num_key_value_heads": 2, "vocab_size": 151936, "rope_parameters": ROPE,
        },
        {},
    ),
    "7b": (
        {
            "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
            "num_key_value_heads": 4, "vocab_size": 152064, "rope_parameters": ROPE,
        },
        {},
    ),
    "tiny": (
        {
            "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 3, "num_attention_heads": 4,
            "num_key_value_heads": 2, "vocab_size": 2048,
            "rope_parameters": ROPE | {"mrope_section": [4, 6, 6]},
        },
        {"depth": 2, "embed_dim": 64, "num_heads": 4, "mlp_ratio": 2},
    ),
}  # fmt: skip
"""Language model and vision tower of Qwen2-VL-2B (for the size 3b) and 7B. Missing values are Qwen2-VL's defaults."""


def make_judge(options: Options) -> Figures:
    """Writes a Qwen2.5-VL with random weights in bfloat16."""
    if options.model:
        raise Skipped(f"not needed: the checkpoint {options.model} is measured")
    import torch

    from demo.tiny_model import build_model, make_tokenizer

    begun = time.perf_counter()
    text, vision = JUDGES["tiny" if options.dry_run else options.size]
    spread = {
        "initializer_range": 0.08 * (128 / text["hidden_size"]) ** 0.5
    }  # spreads the scores over most of (0, 1)
    tokenizer = make_tokenizer()
    with torch.device(options.device):
        model = build_model(
            tokenizer, spread | text, vision, seed=0, rope_theta=1e4, tied=False
        ).bfloat16()
    return _saved(options.judge_folder, model, tokenizer, begun)


def make_student(options: Options) -> Figures:
    """Writes a Qwen2-VL with random weights in bfloat16."""
    import torch
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    from demo.tiny_model import make_tokenizer

    begun = time.perf_counter()
    text, vision = STUDENTS["tiny" if options.dry_run else options.size]
    tokenizer = make_tokenizer()
    ids = tokenizer.convert_tokens_to_ids
    config = Qwen2VLConfig(
        text_config=text,
        vision_config=vision | {"hidden_size": text["hidden_size"]},
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
    )
    torch.manual_seed(0)
    with torch.device(options.device):
        model = Qwen2VLForConditionalGeneration(config).bfloat16()
    return _saved(options.training_folder, model, tokenizer, begun)


def _saved(folder: Path, model: Any, tokenizer: Any, begun: float) -> Figures:
    """Saves a model completely or not at all."""
    from demo.tiny_model import save_model

    parameters = sum(parameter.numel() for parameter in model.parameters())
    unfinished = folder.with_name(f"{folder.name}-unfinished")
    save_model(unfinished, model, tokenizer)
    unfinished.replace(folder)
    return {"parameters": parameters, "seconds": time.perf_counter() - begun}


def tables(outcomes: Mapping[str, Outcome]) -> list[Table]:
    """Returns a table with the sizes of the models."""
    rows = []
    for name, outcome in outcomes.items():
        figures = outcome.figures
        millions = figures["parameters"] / 1e6 if figures else None
        rows.append(
            [
                STEP.cases[name].title,
                number(millions, ",.2f"),
                number(figures.get("seconds"), ".1f"),
            ]
        )
    return [Table(["model", "parameters, millions", "creating and saving, s"], rows)]


STEP = Step(
    name="models",
    title="Models",
    about="Random weights in bfloat16 and a small tokenizer. Speed depends only on the shapes. Scores have no meaning.",
    cases={
        "judge": Case("Qwen2.5-VL, for the judge", make_judge, ["torch", "transformers"]),
        "student": Case("Qwen2-VL, for the trainer", make_student, ["torch", "transformers"]),
    },
    tables=tables,
)
