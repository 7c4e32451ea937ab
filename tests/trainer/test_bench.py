"""The computed operations of a batch in bench/trainer.py equal the operations that run."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

import trainer.models.length_buckets
from bench.made_up import training_rows
from bench.trainer import flops, opened, ours, trained
from judge_service.backends.model_shapes import shape_of
from tests.families import MAKERS
from trainer.data.collate import collate
from trainer.models.embedder import stream_of

ON_A_CPU = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: (
        sdpa_flop_count(q, k, v)
    ),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda gradient, q, k, v, *_, **__: (
        sdpa_backward_flop_count(gradient, q, k, v)
    ),
}
"""The counter itself knows the attention of GPUs only."""


def test_the_counted_operations_equal_those_of_a_training_step(tmp_path, monkeypatch):
    """Two numbers are corrected: the counter counts causal attention as a full square, and one product of it twice.

    The first layer's query, key and value need no gradient of their inputs, although our formula counts one.
    """
    MAKERS["qwen2_vl"](tmp_path)
    monkeypatch.setattr(trainer.models.length_buckets, "MOST_PADDING", 0)
    backbone = opened(str(tmp_path), device="cpu", max_pixels=112 * 112)
    (batch,) = training_rows(1, 1, seed=1)
    examples = [batch[0], batch[5]]
    with FlopCounterMode(display=False, custom_mapping=ON_A_CPU) as run:
        ours(backbone, examples)
    contents = [*collate(examples).queries, *collate(examples).candidates]
    lengths = [backbone.inputs.length(stream_of(backbone, content)) for content in contents]
    squares = sum(3.5 * n * n - 3 * n * (n + 1) / 2 for n in lengths)
    text = backbone.inputs.config.get_text_config()
    heads, head = (
        text.num_attention_heads + 2 * text.num_key_value_heads,
        text.hidden_size // text.num_attention_heads,
    )
    rank = next(one for name, one in trained(backbone).items() if "lora_A" in name).shape[0]
    below = 2 * text.hidden_size * (heads * head + 3 * rank) * sum(lengths)
    expected = (
        flops(backbone, examples)
        + squares * shape_of(backbone.inputs.config).attention_flops
        - below
    )
    print(f"{run.get_total_flops():.6g} run, {expected:.6g} expected")
    assert run.get_total_flops() == pytest.approx(expected, rel=1e-4)
