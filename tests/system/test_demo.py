"""`make demo`, whole: every command ends well, and every folder that it leaves is whole."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from unijudge.corpus import Corpus
from unijudge.inventory import check
from unijudge.rankings import read_rankings
from unijudge.scores import ScoreManifest, read_scores


@pytest.mark.timeout(900)
def test_the_demo_goes_from_raw_images_to_a_final_ranking(tmp_path):
    out = tmp_path / "demo"
    done = subprocess.run(
        [sys.executable, "-m", "demo", out], capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2]
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for folder in ("train/corpus", "train/vectors", "train/scores", "train/triples", "eval/corpus", "eval/trained"):
        assert "whole" in check(out / folder)
    manifest = ScoreManifest.model_validate_json((out / "train/scores/manifest.json").read_text())
    assert manifest.judge.backend in {"vllm", "transformers"}
    assert len(list(read_scores(out / "train/scores"))) == 400
    subsets = {}
    for name in ("base", "trained"):
        subsets[name] = json.loads((out / f"eval/{name}-metrics/metrics.json").read_text())["subsets"]
        assert {subset: values["queries"] for subset, values in subsets[name].items()} == {
            "Digits_cls": 100,
            "Digits_i2i": 100,
        }
        assert len(list(read_rankings(out / f"eval/{name}-metrics/rankings.parquet"))) == 200
    assert subsets["base"] != subsets["trained"]
    assert len(Corpus(out / "eval/corpus").queries) == 200
    assert "these numbers say that the pipeline runs, no more" in done.stdout
