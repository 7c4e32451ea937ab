"""A training does not depend on where it is resumed, on the cache, or on the split of an update into batches."""

import hashlib
import json
from functools import partial

import numpy as np
import pytest

from tests.trainer.exported import quiet
from tests.trainer.runs import run_settings
from trainer.losses.settings import LossSettings
from trainer.training.embedder import train_embedder


def bytes_of(adapter):
    return hashlib.sha256((adapter / "adapter_model.safetensors").read_bytes()).hexdigest()


def stop_at(wanted, step, _loss):
    if step == wanted:
        raise KeyboardInterrupt


@pytest.fixture
def run(corpus, triples, model, tmp_path):
    """Settings of a short run with dropout, on rows with pictures."""

    def made(name, **changes):
        settings = run_settings(
            corpus, triples, model, tmp_path / name, batch_size=3, warmup_steps=0, **changes
        )
        return settings.model_copy(
            update={"lora": settings.lora.model_copy(update={"dropout": 0.1})}
        )

    return made


def test_a_run_is_bitwise_the_same_for_any_interruption_and_cache(run, model):
    """The cache decides which pictures the vision tower sees together.

    After each interruption, another cache is empty.
    """
    whole = bytes_of(train_embedder(run("whole", max_steps=5), quiet))
    for cut in (2, 3, 4):
        settings = run(f"cut-{cut}", max_steps=5, save_steps=1)
        with pytest.raises(KeyboardInterrupt):
            train_embedder(settings, partial(stop_at, cut))
        assert bytes_of(train_embedder(settings, quiet)) == whole, cut
    for kept in (0, 1):
        uncached = run(f"kept-{kept}", max_steps=5)
        looks = uncached.model.model_copy(update={"vision_cache_mb": kept})
        assert (
            bytes_of(train_embedder(uncached.model_copy(update={"model": looks}), quiet)) == whole
        ), kept


@pytest.mark.parametrize("name", ["symmetric_kl", "infonce"])
def test_an_update_over_all_rows_is_the_same_however_it_is_cut_into_batches(
    corpus, triples, model, tmp_path, name
):
    """An update has eight rows: 8, 2 × 4, 4 × 2 or 8 × 1.

    Rows do not affect each other. AdamW can turn differences in the last bits into whole steps.
    """
    found = []
    for size in (8, 4, 2, 1):
        settings = run_settings(
            corpus,
            triples,
            model,
            tmp_path / str(size),
            max_steps=3,
            batch_size=size,
            gradient_accumulation_steps=8 // size,
            warmup_steps=0,
        )
        settings = settings.model_copy(
            update={"loss": LossSettings(name=name, student_temperature=0.1)}
        )
        train_embedder(settings, quiet)
        lines = (tmp_path / str(size) / "metrics.jsonl").read_text().splitlines()
        found.append([(line["loss"], line["gradient_norm"]) for line in map(json.loads, lines)])
    assert found[0][0][1] > 1e-3
    for other in found[1:]:
        assert other[0] == pytest.approx(found[0][0], rel=1e-5)
        assert np.array(other) == pytest.approx(np.array(found[0]), rel=1e-3)
