"""The tiny models that are checked in, and the script that teaches them."""

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest

from demo import pretrain
from demo.commands import BASE, JUDGE
from demo.lessons import Album, Lessons
from demo.quality import png, quality
from demo.tiny_model import make_tokenizer
from demo.world import SMALL
from judge_service.backends import open_judge
from judge_service.settings import ModelSettings, ServiceSettings
from trainer.models.backbone import open_backbone
from trainer.models.settings import BackboneSettings
from unijudge.content import Content

ROOT = Path(__file__).parents[2]


def test_the_judge_judges():
    """On pairs that nothing was chosen by: not those of the demo either."""
    album = Album.of(SMALL, scenes=200, seed=987, held_out=True)
    pairs = Lessons(album, make_tokenizer(), 987).pairs(300)

    def whole(content):
        return Content(content.text, png(album.pictures[int(content.image)]) if content.image else None)

    model = ModelSettings(
        name=str(ROOT / JUDGE), backend="transformers", device="cpu", dtype="float32", max_tokens=1024,
        min_pixels=3136, max_pixels=3136,
    )  # fmt: skip
    judge = open_judge(ServiceSettings(model=model))

    async def scores():
        return [(await judge.judge(whole(pair.query), [whole(pair.candidate)]))[0] for pair in pairs]

    answers = asyncio.run(scores())
    areas = quality(pairs, np.array([answer.score for answer in answers]))
    print({name: round(area, 3) for name, area in areas.items()})
    assert areas["all"] > 0.9
    assert areas["hard"] > 0.85
    assert np.mean([answer.mass for answer in answers]) > 0.9


@pytest.mark.parametrize("folder", [JUDGE, BASE], ids=str)
def test_a_checked_in_model_says_how_it_was_made_and_is_small(folder):
    log = json.loads((ROOT / folder.parent / "pretraining.json").read_text())
    assert log["seed"] == pretrain.SEED
    assert log["steps"] == pretrain.STEPS
    assert {line["stage"] for line in log["log"]} == set(pretrain.STEPS)
    assert sum(path.stat().st_size for path in (ROOT / folder).iterdir()) < 3e6
    assert open_backbone(BackboneSettings(name=str(ROOT / folder), device="cpu")).width == 128


def test_the_script_teaches_both(tmp_path, monkeypatch):
    """All of its stages, two steps each: what comes out is loaded by the trainer, and differs."""
    monkeypatch.setattr(pretrain, "SCENES", 60)
    monkeypatch.setattr(pretrain, "STEPS", dict.fromkeys(pretrain.STEPS, 2))
    pretrain.main(tmp_path)
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("judge", "base")]
    assert weights[0] != weights[1]
    for name in ("judge", "base"):
        open_backbone(BackboneSettings(name=str(tmp_path / name), device="cpu"))
    stages = [line["stage"] for line in json.loads((tmp_path / "pretraining.json").read_text())["log"]]
    assert stages == ["see", "caption", "embed", "phrases", "couples", "relations", "mixed", "judge"]
