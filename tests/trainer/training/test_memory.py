"""The estimate of a training's memory, compared with the tensors that autograd saves, and its warning."""

import json

import pytest
import torch

from tests.families import MAKERS
from tests.pictures import png
from tests.trainer.runs import quiet, run_settings
from trainer.models.backbone import open_backbone
from trainer.models.lora import add_lora
from trainer.models.out_of_memory import GIB, DeviceMemory
from trainer.models.settings import BackboneSettings, LoraSettings
from trainer.training.embedder import train_embedder
from trainer.training.memory import (
    BlockMemory,
    TrainingMemory,
    block_memory,
    hidden_bytes,
    saved_bytes,
    training_memory,
    will_not_fit,
)
from unijudge.content import Content

CONTENTS = [
    Content(text="Which colour is the square in this picture?", image=png("red")),
    Content(text="a large red square on a white ground"),
    Content(text="green"),
    Content(text="a blue circle to the left of two yellow triangles, and nothing else"),
]
SMALL_GPU = DeviceMemory(name="A small GPU", total=2**20, peak=0, free=1000)


def opened(model, *, checkpointing=False, **lora):
    backbone = open_backbone(model)
    torch.manual_seed(0)
    add_lora(backbone, LoraSettings(rank=2, **lora))
    if checkpointing:
        backbone.model.gradient_checkpointing_enable({"use_reentrant": False})
    return backbone, [backbone.read(content) for content in CONTENTS]


def whole_model(backbone, streams):
    """Returns the bytes that a forward pass saves, except weights, if the pictures' features are already cached."""
    backbone.model.train()
    backbone.last_hidden(streams)
    weights = {parameter.untyped_storage().data_ptr() for parameter in backbone.model.parameters()}
    return saved_bytes(lambda: backbone.last_hidden(streams), but=weights)


@pytest.mark.parametrize("family", MAKERS)
def test_the_memory_of_one_block_times_the_blocks_equals_the_whole_model(family, tmp_path):
    MAKERS[family](tmp_path / "m")
    sizes = {"min_pixels": 56 * 56, "max_pixels": 112 * 112}
    compare(BackboneSettings(name=str(tmp_path / "m"), device="cpu", **sizes))


@pytest.mark.parametrize(("dtype", "lora"), [
    ("float32", {"dropout": 0.1}), ("float32", {"dora": True}), ("bfloat16", {}), ("bfloat16", {"dropout": 0.1}),
])  # fmt: skip
def test_the_estimate_holds_for_every_dtype_and_kind_of_lora(model, dtype, lora):
    compare(model.model_copy(update={"dtype": dtype}), **lora)


def compare(model, **lora):
    backbone, streams = opened(model, **lora)
    block, blocks = block_memory(backbone, streams), len(backbone.language_model.layers)
    passes = backbone.padded_tokens(streams)
    kept = hidden_bytes(block, blocks, passes, checkpointing=False)
    assert kept == pytest.approx(whole_model(backbone, streams), rel=0.1)

    backbone.model.gradient_checkpointing_enable({"use_reentrant": False})
    assert block_memory(backbone, streams) == block, (
        "checkpointing does not hide what a block keeps"
    )
    entries = hidden_bytes(block, blocks, passes, checkpointing=True) - block.everything * max(
        passes
    )
    assert entries == pytest.approx(whole_model(backbone, streams), rel=0.1)
    assert entries < kept / 10


def test_bytes_by_hand():
    """The product (x·x)·Wᵀ saves both factors once: x has 5·2 numbers, and W has 3·2 numbers."""
    weight, given = torch.ones(3, 2), torch.ones(5, 2, requires_grad=True)
    both = saved_bytes(lambda: (given * given) @ weight.T, but=set())
    assert both == 4 * (5 * 2 + 3 * 2)
    assert (
        saved_bytes(lambda: (given * given) @ weight.T, but={weight.untyped_storage().data_ptr()})
        == 4 * 5 * 2
    )
    block, passes = BlockMemory(everything=118_000, entry=3_072, norm=9_216), [16_000, 9_200]
    assert hidden_bytes(block, 28, passes, checkpointing=False) == (118_000 * 28 + 9_216) * 25_200
    assert (
        hidden_bytes(block, 28, passes, checkpointing=True)
        == (3_072 * 28 + 9_216) * 25_200 + 118_000 * 16_000
    )


def test_chunks_are_kept_one_at_a_time_and_questions_have_logits(model):
    backbone, streams = opened(model)
    whole, cached = (
        training_memory(backbone, [batch], checkpointing=False, questions=False)
        for batch in ([streams], [[stream] for stream in streams])
    )
    lengths = [backbone.inputs.length(stream) for stream in streams]
    assert whole.tokens == sum(backbone.padded_tokens(streams)) >= sum(lengths)
    assert cached.tokens == max(lengths)
    assert cached.hidden < whole.hidden
    trained = sum(one.numel() for one in backbone.model.parameters() if one.requires_grad)
    assert whole.adapter == cached.adapter == 3 * 4 * trained
    asked = training_memory(
        backbone, [[streams], [streams[:1]]], checkpointing=False, questions=True
    )
    assert whole.logits == 0
    assert asked.logits == 4 * 4 * len(streams) * backbone.model.lm_head.weight.shape[0]
    assert (asked.hidden, asked.batches) == (whole.hidden, 2)


def test_equal_inputs_count_once(model):
    backbone, streams = opened(model)
    once, twice = (
        training_memory(backbone, [[batch]], checkpointing=True, questions=False)
        for batch in (streams, streams * 2)
    )
    assert once == twice


def test_the_warning_by_hand():
    need = TrainingMemory(hidden=89 * GIB, adapter=GIB // 2, logits=0, tokens=25_200, batches=4)
    memory = DeviceMemory(name="NVIDIA H100 80GB HBM3", total=80 * GIB, peak=4 * GIB, free=75 * GIB)
    assert will_not_fit(need, memory, ["batch_size = 4", "negatives below 8"]) == (
        "memory: this training will need about 89.5 GiB in addition to its weights, but NVIDIA H100 80GB HBM3 has 75.0 "
        "GiB of 80.0 GiB left. Hidden states need 89.0 GiB (25,200 tokens, in the largest of 4 batches), the adapter "
        "0.5 GiB, the logits 0.0 GiB. These changes save memory, the cheapest first: batch_size = 4; negatives below 8"
    )
    enough = DeviceMemory(name="NVIDIA B200", total=180 * GIB, peak=0, free=89 * GIB + GIB // 2)
    assert will_not_fit(need, enough, []) is None


def test_a_training_that_will_not_fit_is_warned_of_before_it_starts(
    corpus, triples, model, tmp_path, monkeypatch, caplog
):
    """The estimate is compared with a simulated GPU. The training itself runs to its end."""
    monkeypatch.setattr(DeviceMemory, "of", lambda device: SMALL_GPU)
    settings = run_settings(corpus, triples, model, tmp_path / "run", max_steps=1, warmup_steps=0)
    plain = run_settings(corpus, triples, model, tmp_path / "plain", max_steps=1, warmup_steps=0)
    (line,) = warned(settings, caplog)
    start = "memory: this training will need about 0.0 GiB in addition to its weights, but A small GPU has"
    assert line.startswith(start)
    assert "gradient_checkpointing = true; model.dtype = 'bfloat16'; batch_size = " in line
    monkeypatch.undo()
    assert warned(plain, caplog) == []
    weights = [
        (one.out / "adapter" / "adapter_model.safetensors").read_bytes()
        for one in (settings, plain)
    ]
    assert weights[0] == weights[1], "measuring changes nothing"


def warned(settings, caplog):
    caplog.clear()
    train_embedder(settings, quiet)
    return [
        record.getMessage() for record in caplog.records if record.getMessage().startswith("memory")
    ]


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_hidden_states_are_computed_again_on_a_gpu_by_default(
    corpus, triples, model, tmp_path, monkeypatch, kind
):
    """settings.json holds the resolved value. With `auto`, the finished run is found again."""
    monkeypatch.setattr("trainer.training.finetune.device_of", lambda wanted: torch.device(kind))
    settings = run_settings(corpus, triples, model, tmp_path / "run", max_steps=1)
    assert settings.gradient_checkpointing == "auto"
    train_embedder(settings, quiet)
    begun = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert begun["settings"]["gradient_checkpointing"] is (kind == "cuda")
    train_embedder(settings, quiet)
    told = run_settings(
        corpus, triples, model, tmp_path / "told", max_steps=1, gradient_checkpointing=kind == "cpu"
    )
    train_embedder(told, quiet)
    begun = json.loads((tmp_path / "told" / "settings.json").read_text())
    assert begun["settings"]["gradient_checkpointing"] is (kind == "cpu")
