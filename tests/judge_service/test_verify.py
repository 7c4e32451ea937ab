"""`judge verify`: passes the model's own scores, and names what is wrong with others."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from judge_service.backends import open_judge
from judge_service.settings import ModelSettings, ServiceSettings
from judge_service.verify import check_memory, golden_set
from tests.miner.conftest import serving
from unijudge.errors import SettingsError
from unijudge.prompt import Prompt

UNIJUDGE = Path(sys.executable).parent / "unijudge"
MODEL = {"min_pixels": 3136, "max_pixels": 12544, "backend": "transformers"}


def verify(url, folder, *options):
    settings = [f"model.name={folder}", *(f"model.{name}={value}" for name, value in MODEL.items())]
    overrides = [part for setting in settings for part in ("--set", setting)]
    command = [UNIJUDGE, "judge", "verify", url, *overrides, "--queries", "3", *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def served(folder, prompt=None, **changes):
    model = ModelSettings(name=str(folder), **MODEL | changes)
    return serving(open_judge(ServiceSettings(model=model, prompt=prompt or Prompt())))


def test_the_models_own_scores_pass(tiny_model):
    with served(tiny_model) as url:
        done = verify(url, tiny_model)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "pairs                        42" in done.stdout
    assert "verdict                      the model's own scores" in done.stdout
    assert "rank correlation             1.0000" in done.stdout


@pytest.mark.parametrize(
    ("prompt", "changes", "cause"),
    [
        (Prompt(instruction="Do they match?"), {}, "another prompt: wording, labels or order"),
        (None, {"max_pixels": 3136}, "another pixel budget: 3136–3136 there, 3136–12544 here"),
        (None, {"dtype": "bfloat16"}, "the service computes in bfloat16, the reference in float32"),
    ],
)
def test_other_scores_fail_with_their_cause(tiny_model, prompt, changes, cause):
    with served(tiny_model, prompt, **changes) as url:
        done = verify(url, tiny_model, "--tolerance", "1e-4")
    assert done.returncode == 1
    assert "NOT the model's own scores" in done.stdout
    assert f"likely cause: {cause}" in done.stdout


def test_a_reference_that_does_not_fit_the_memory(tiny_model, monkeypatch):
    monkeypatch.setattr("judge_service.verify.available_bytes", lambda: 2**20)
    model = ModelSettings(name=str(tiny_model), device="cpu", **MODEL)
    with pytest.raises(SettingsError, match=r"weights take 0\.0 GiB in float32, and 0\.0 GiB of memory"):
        check_memory(ServiceSettings(model=model))
    monkeypatch.setattr("judge_service.verify.available_bytes", lambda: 2**30)
    check_memory(ServiceSettings(model=model))


def test_bfloat16_passes_within_its_own_band(tiny_model):
    with served(tiny_model, dtype="bfloat16") as url:
        assert verify(url, tiny_model).returncode == 0


def test_nobody_there_is_one_line(tiny_model):
    done = verify("http://127.0.0.1:nonsense", tiny_model)
    assert done.returncode == 1
    assert "not a URL" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_golden_set_has_every_kind_on_either_side():
    pairs = [(query, candidate) for query, candidates in golden_set(15) for candidate in candidates]
    assert len(pairs) >= 200
    kinds = {(q.text is None, q.image is None, c.text is None, c.image is None) for q, c in pairs}
    assert len(kinds) == 9
    assert golden_set(2) == golden_set(2)
    assert len({np.frombuffer(c.image or b"", np.uint8).tobytes() for _, c in pairs}) > 100
