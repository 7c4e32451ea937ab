"""The tiny models of the repository, and the script that trains them."""

import asyncio
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from demo.commands import BASE, JUDGE
from demo.pairs import areas_of, write_pairs
from demo.teaching import pretrain
from demo.world import WORLD
from judge_service.backends import open_judge
from judge_service.cli import app as judge
from judge_service.settings import ModelSettings, ServiceSettings
from tests.miner.conftest import serving
from trainer.models.backbone import open_backbone
from trainer.models.settings import BackboneSettings
from unijudge.content import Content
from unijudge.formats.labelled_scores import read_labelled
from unijudge.judging.verdicts import Verdict

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """New pairs, which were not used for any choice: the demo has other pairs."""
    folder = tmp_path_factory.mktemp("fresh") / "pairs"
    write_pairs(folder, 300, seed=987)
    return folder


def test_the_judge_judges(pairs):
    model = ModelSettings(
        name=str(ROOT / JUDGE), backend="transformers", device="cpu", dtype="float32", max_tokens=1024,
        min_pixels=WORLD.pixels**2, max_pixels=WORLD.pixels**2,
    )  # fmt: skip
    with serving(open_judge(ServiceSettings(model=model))) as url:
        words = [
            "bench",
            str(pairs / "pairs.jsonl"),
            "--service",
            url,
            "--out",
            str(pairs / "bench"),
            "--injections",
            "0",
        ]
        done = CliRunner().invoke(judge, words)
    assert done.exit_code == 0, done.output
    rows = list(read_labelled(pairs / "bench" / "scores.parquet"))
    areas = areas_of(rows)
    print({name: round(area, 3) for name, area in areas.items()})
    assert areas["all"] > 0.9
    assert areas["hard"] > 0.85
    assert np.mean([row.answer.mass for row in rows]) > 0.9


def test_the_labels_of_fresh_pairs_are_true(pairs):
    """No model was trained on these scenes, and each label agrees with the words."""
    rows = [json.loads(line) for line in (pairs / "pairs.jsonl").read_text().splitlines()]
    assert len(rows) == 300
    assert {row["subset"] for row in rows} == {"Scenes", "digit_name", "digit_image"}
    for row in rows:
        assert (row["kind"] is not None) == (row["subset"] == "Scenes" and not row["label"])
        for name in ("query_image", "candidate_image"):
            assert row[name] is None or (pairs / row[name]).exists()
    assert 0.35 < np.mean([row["label"] for row in rows]) < 0.65


@pytest.mark.parametrize("folder", [JUDGE, BASE], ids=str)
def test_a_model_of_the_repository_records_its_origin_and_is_small(folder):
    log = json.loads((ROOT / folder.parent / "pretraining.json").read_text())
    assert log["seed"] == pretrain.SEED
    assert log["steps"] == pretrain.STEPS
    assert {line["stage"] for line in log["log"]} == set(pretrain.STEPS)
    assert sum(path.stat().st_size for path in (ROOT / folder).iterdir()) < 3e6
    assert open_backbone(BackboneSettings(name=str(ROOT / folder), device="cpu")).width == 128


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """The output of the script with two steps in each stage."""
    folder = tmp_path_factory.mktemp("taught") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        teach_little(patch, folder)
    return folder


def teach_little(patch, folder, family=pretrain.OWN_FAMILY):
    patch.setattr(pretrain, "SCENES", 60)
    patch.setattr(pretrain, "STEPS", dict.fromkeys(pretrain.STEPS, 2))
    patch.setattr(pretrain, "KEPT", (1,))
    pretrain.main(folder, family)


def weights(folder, name):
    return (folder / name / "model.safetensors").read_bytes()


def logged(folder):
    lines = json.loads((folder / "pretraining.json").read_text())["log"]
    return [{name: value for name, value in line.items() if name != "cpu_s"} for line in lines]


def test_the_script_teaches_both(taught):
    """After all stages, the trainer can load both models, and the models differ."""
    assert len({weights(taught, name) for name in ("judge", "judge-1", "base")}) == 3
    for name in ("judge", "base"):
        open_backbone(BackboneSettings(name=str(taught / name), device="cpu"))
    stages = [line["stage"] for line in logged(taught)]
    assert stages == list(pretrain.STEPS)


def test_an_interrupted_pretraining_resumes_with_the_same_result(taught, tmp_path, monkeypatch):
    half = tmp_path / "half"
    shutil.copytree(taught, half)
    for name in ("relations", "mixed", "judge"):
        (half / "stages" / f"{name}.pt").unlink()
    teach_little(monkeypatch, half)
    for name in ("judge", "judge-1", "base"):
        assert weights(half, name) == weights(taught, name)
    assert logged(half) == logged(taught)


@pytest.mark.parametrize("family", ["internvl", "llava_onevision"])
def test_a_judge_of_another_family_is_taught_alike(family, tmp_path, monkeypatch):
    """The script runs the same stages except the base embedder, and the service can serve the judge."""
    pytest.importorskip("torchvision")  # the processors of these families need torchvision
    teach_little(monkeypatch, tmp_path, family)
    assert [line["stage"] for line in logged(tmp_path)] == [
        stage for stage in pretrain.STEPS if stage != "embed"
    ]
    assert not (tmp_path / "base").exists()
    model = ModelSettings(
        name=str(tmp_path / "judge"), backend="transformers", device="cpu", dtype="float32", max_tokens=1024,
        min_pixels=WORLD.pixels**2, max_pixels=WORLD.pixels**2,
    )  # fmt: skip
    judge = open_judge(ServiceSettings(model=model))
    image = io.BytesIO()
    Image.new("RGB", (WORLD.pixels, WORLD.pixels), "red").save(image, "PNG")
    (verdict,) = asyncio.run(
        judge.judge(Content("A red picture.", None), [Content(None, image.getvalue())])
    )
    assert isinstance(verdict, Verdict)
