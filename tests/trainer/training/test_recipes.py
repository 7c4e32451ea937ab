"""The shipped recipes are valid settings with the values of the paper."""

from pathlib import Path

import pytest

from trainer.benchmarks.settings import BenchmarkSettings
from trainer.embedding.settings import EmbedSettings
from trainer.models.backbone import PICTURES_AHEAD
from trainer.training.settings import EmbedderSettings, RerankerSettings
from unijudge.settings import load_settings

RECIPES = Path(__file__).parents[3] / "deploy" / "recipes"
NAMES = {
    "unime-v2-2b": "Qwen/Qwen2-VL-2B-Instruct",
    "unime-v2-7b": "Qwen/Qwen2-VL-7B-Instruct",
    "unime-v2-llava-ov": "llava-hf/llava-onevision-qwen2-7b-ov-hf",
}


def test_pictures_that_are_prepared_ahead_are_still_there_when_their_batch_runs():
    """Otherwise each picture would be decoded twice, the second time while the model waits.

    Every content has a picture of 3 bytes a pixel. One batch runs, and two batches for each worker are prepared ahead.
    """
    training = EmbedderSettings(corpus="c", triples="t", out="o")
    embedding, measuring = EmbedSettings(corpus="c", out="o"), BenchmarkSettings(root="r")
    contents = [
        training.batch_size * (2 + training.num_negatives),
        embedding.batch_size,
        measuring.batch_size,
    ]
    for job, in_batch in zip((training, embedding, measuring), contents, strict=True):
        assert (1 + 2 * job.workers) * in_batch * 3 * job.model.max_pixels < PICTURES_AHEAD


@pytest.mark.parametrize("name", NAMES)
def test_an_embedders_recipe_is_the_papers(name):
    recipe = load_settings(EmbedderSettings, RECIPES / f"{name}.toml")
    assert recipe.model.name == NAMES[name]
    assert recipe.batch_size * recipe.gradient_accumulation_steps == 1024
    assert recipe.gradient_accumulation_steps % 8 == 0, "eight GPUs share it"
    assert (recipe.max_steps, recipe.num_negatives, recipe.seed) == (2000, 8, 42)
    assert (recipe.lora.rank, recipe.lora.alpha, recipe.lora.dropout) == (16, 64, 0.1)
    assert (recipe.loss.name, recipe.loss.student_temperature, recipe.loss.teacher_temperature) == (
        "symmetric_kl", 0.02, 0.02,
    )  # fmt: skip
    side, rate = (336, 2e-5) if name.endswith("ov") else (672, 1e-4)
    assert (recipe.model.encoding, recipe.model.resize, recipe.model.max_pixels) == (
        "vlm2vec",
        "square",
        side**2,
    )
    assert recipe.learning_rate == rate


def test_the_rerankers_recipe_is_the_papers():
    recipe = load_settings(RerankerSettings, RECIPES / "unime-v2-reranker.toml")
    assert recipe.model.name == "Qwen/Qwen2.5-VL-7B-Instruct"
    assert (recipe.lora.rank, recipe.lora.alpha, recipe.lora.dropout, recipe.learning_rate) == (
        128,
        256,
        0.05,
        2e-5,
    )
    assert recipe.batch_size * recipe.gradient_accumulation_steps == 64
    assert recipe.warmup_steps == 0.03 * recipe.max_steps
