"""Out of memory in training, embedding and loading: the error has sizes and cures, on every process."""

import os
import re
import subprocess
import sys

import pytest
import torch
import transformers
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLTextModel

from tests.trainer.runs import quiet, run_settings
from tests.trainer.short_of_memory import MESSAGE, run_out_in_pass
from trainer.embedding.embed import embed_corpus
from trainer.embedding.settings import EmbedSettings
from trainer.models.backbone import open_backbone
from trainer.models.out_of_memory import (
    GIB,
    DeviceMemory,
    embedding_cures,
    loading_cures,
    out_of_memory_named,
)
from trainer.models.settings import BackboneSettings
from trainer.training.embedder import train_embedder
from trainer.training.memory_advice import training_cures
from trainer.training.reranker import train_reranker
from trainer.training.settings import EmbedderSettings, RerankerSettings
from unijudge.errors import OutOfMemory
from unijudge.memory import is_out_of_memory
from unijudge.settings import load_settings, overrides_of

REQUIRED = ["corpus=c", "triples=t", "out=o"]
H100 = DeviceMemory(name="NVIDIA H100 80GB HBM3", total=80 * GIB, peak=78 * GIB, free=GIB // 2)


@pytest.fixture
def short(monkeypatch):
    """Raises an out-of-memory error in one pass of the decoder."""
    monkeypatch.setattr(Qwen2_5_VLTextModel, "forward", Qwen2_5_VLTextModel.forward)
    return run_out_in_pass


def test_a_training_error_names_the_step_its_size_and_the_cures(
    corpus, triples, model, tmp_path, short
):
    """A batch of 2 rows has 2 queries and 8 candidates."""
    settings = run_settings(
        corpus, triples, model, tmp_path / "run", batch_size=2, gradient_accumulation_steps=2
    )
    short(10)
    steps = []
    with pytest.raises(OutOfMemory) as error:
        train_embedder(settings, lambda step, _: steps.append(step))
    said = re.fullmatch(
        r"step (\d): 2 rows, (\d+) inputs, ([\d,]+) tokens, padding included: out of memory on the CPU\. These changes "
        r"save memory, the cheapest first: gradient_checkpointing = true; model\.dtype = 'bfloat16'; batch_size = 1 "
        r"with gradient_accumulation_steps = 4 \(the same number of rows per update\); num_negatives below (\d)",
        str(error.value),
    )
    step, inputs, tokens, negatives = (int(number.replace(",", "")) for number in said.groups())
    assert step == len(steps) + 1 > 1
    assert (inputs, negatives) == (2 + 8, settings.num_negatives)
    assert tokens > inputs
    assert isinstance(error.value.__cause__, torch.OutOfMemoryError)
    assert not (tmp_path / "run" / "adapter").exists()


def test_every_process_ends_when_one_runs_out(corpus, triples, model, tmp_path):
    """Under torchrun, the second of two processes runs out of memory in its third pass, while the first process waits
    for its gradients.
    """
    settings = run_settings(
        corpus,
        triples,
        model,
        tmp_path / "run",
        max_steps=50,
        batch_size=2,
        gradient_accumulation_steps=2,
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m",
               "tests.trainer.run_short_of_memory", "train", "embedder"]  # fmt: skip
    for override in overrides_of(settings):
        command += [override]
    short = os.environ | {"SHORT_RANK": "1", "SHORT_PASS": "3", "OMP_NUM_THREADS": "1"}
    told = subprocess.run(
        command, capture_output=True, text=True, timeout=240, env=short, check=False
    )
    assert told.returncode != 0
    flat = " ".join(told.stderr.split())
    advice = "These changes save memory, the cheapest first: gradient_checkpointing = true"
    assert flat.count(f"out of memory on the CPU. {advice}") == 1
    assert "The trained adapter" not in told.stdout
    assert not (settings.out / "adapter").exists()


def test_an_embedding_error_names_its_size_and_the_cures(corpus, model, tmp_path, short):
    short(1)
    settings = EmbedSettings(corpus=corpus.folder, out=tmp_path / "vectors", model=model)
    with pytest.raises(OutOfMemory, match=(
        r"^embedding 8 inputs of \d+ tokens, padding included: out of memory on the CPU\. These changes save memory, "
        r"the cheapest first: model\.dtype = 'bfloat16'; model\.batch_tokens below 16384$"
    )):  # fmt: skip
        embed_corpus(settings, quiet)


def test_a_model_that_does_not_fit_is_named(model, monkeypatch):
    load = transformers.AutoModelForImageTextToText.from_pretrained

    def full(*given, **named):
        if named.get("device_map") == "meta":  # the check of the checkpoint loads no weights
            return load(*given, **named)
        raise torch.OutOfMemoryError(MESSAGE)

    monkeypatch.setattr(transformers.AutoModelForImageTextToText, "from_pretrained", full)
    with pytest.raises(
        OutOfMemory, match=r"tiny: loading: out of memory on the CPU\. .* model\.dtype = 'bfloat16'"
    ):
        open_backbone(model)


def test_the_error_has_the_figures_of_the_gpu(monkeypatch):
    monkeypatch.setattr(DeviceMemory, "of", lambda device: H100)
    with (
        pytest.raises(OutOfMemory) as error,
        out_of_memory_named(
            torch.device("cuda"), lambda: "step 12: 8 rows", lambda: ["num_negatives below 8"]
        ),
    ):
        raise torch.OutOfMemoryError(MESSAGE)
    assert str(error.value) == (
        "step 12: 8 rows: out of memory on NVIDIA H100 80GB HBM3 (80.0 GiB; tensors used 78.0 GiB at the peak, 0.5 GiB "
        "are free). These changes save memory, the cheapest first: num_negatives below 8"
    )


@pytest.mark.parametrize(("error", "expected"), [
    (torch.OutOfMemoryError(MESSAGE), True),
    (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
    (RuntimeError("CUDA error: out of memory"), True),
    (RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"), True),
    (RuntimeError("CUDA error: device-side assert triggered"), False),
])  # fmt: skip
def test_only_memory_errors_are_converted(error, expected):
    assert is_out_of_memory(error) == expected
    wanted = OutOfMemory if expected else RuntimeError
    with pytest.raises(wanted), out_of_memory_named(torch.device("cpu"), lambda: "a step", list):
        raise error


@pytest.mark.parametrize(("kind", "told", "checkpointing", "expected"), [
    (EmbedderSettings, [], False, [
        "gradient_checkpointing = true", "model.dtype = 'bfloat16'",
        "batch_size = 4 with gradient_accumulation_steps = 2 (the same number of rows per update)",
        "num_negatives below 8", "model.max_pixels below 451584",
    ]),
    (EmbedderSettings, [
        "model.dtype=bfloat16", "batch_size=3", "gradient_accumulation_steps=5", "num_negatives=1",
    ], True, [
        "batch_size = 1 with gradient_accumulation_steps = 15 (the same number of rows per update)",
        "model.batch_tokens below 16384",
        "model.max_pixels below 451584", "model.dtype = 'nf4'",
    ]),
    (EmbedderSettings, ["model.dtype=nf4", "loss.in_batch_weight=1", "num_negatives=1"], True, [
        "gradcache_chunk_size = 8", "model.batch_tokens below 16384", "model.max_pixels below 451584",
    ]),
    (EmbedderSettings, [
        "model.dtype=nf4", "loss.in_batch_weight=1", "gradcache_chunk_size=6", "num_negatives=1",
    ], False, [
        "gradient_checkpointing = true", "gradcache_chunk_size = 3", "model.batch_tokens below 16384",
        "model.max_pixels below 451584",
    ]),
    (EmbedderSettings, [
        "model.dtype=nf4", "loss.in_batch_weight=1", "gradcache_chunk_size=1", "num_negatives=1",
        "model.max_pixels=3136",
    ], True, ["model.batch_tokens below 16384"]),
    (RerankerSettings, ["model.dtype=nf4", "batch_size=1", "num_negatives=2"], True, [
        "num_negatives below 2", "loss.list_size_max below 6", "model.batch_tokens below 16384",
        "model.max_pixels below 235200",
    ]),
    (RerankerSettings, ["model.dtype=nf4", "batch_size=1", "num_negatives=1", "loss.listwise=0"], True, [
        "model.batch_tokens below 16384", "model.max_pixels below 235200",
    ]),
])  # fmt: skip
def test_the_settings_that_help_are_those_that_apply_and_are_not_set(
    kind, told, checkpointing, expected
):
    settings = load_settings(kind, None, REQUIRED + told)
    assert training_cures(settings, checkpointing=checkpointing) == expected


def test_the_settings_that_help_an_embedding_and_a_loading():
    low = BackboneSettings(dtype="bfloat16")
    assert embedding_cures(low) == [
        "model.batch_tokens below 16384",
        "model.max_pixels below 451584",
    ]
    assert loading_cures(low)[-1] == "model.dtype = 'nf4'"
    assert len(loading_cures(BackboneSettings(dtype="nf4"))) == 1


def test_a_reranker_error_names_its_size(corpus, triples, model, tmp_path, short):
    """A batch of 8 rows has 16 pairs and 8 lists."""
    settings = RerankerSettings(
        corpus=corpus.folder,
        triples=triples,
        out=tmp_path / "run",
        model=model.model_dump(),
        num_negatives=7,
        max_steps=1,
        warmup_steps=0,
    )
    short(1)
    with pytest.raises(
        OutOfMemory,
        match=r"^step 1: 8 rows, 24 inputs, [\d,]+ tokens.* loss\.list_size_max below 6",
    ):
        train_reranker(settings, quiet)
