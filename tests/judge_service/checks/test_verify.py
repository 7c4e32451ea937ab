"""`judge verify`: the model's own scores pass, and the reason for other scores is reported."""

import asyncio
import math
import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from judge_service.backends import open_judge
from judge_service.backends.scripted import ScriptedJudge
from judge_service.checks.verify import check_memory, golden_set, verify
from judge_service.cli import app
from judge_service.settings import ModelSettings, ServiceSettings
from tests.miner.conftest import serving
from unijudge.errors import SettingsError, UnijudgeError
from unijudge.judging.prompt import Prompt
from unijudge.judging.verdicts import PairError, Verdict

MODEL = {"min_pixels": 3136, "max_pixels": 12544, "backend": "transformers"}


def words(url, folder, *options):
    settings = [f"model.name={folder}", *(f"model.{name}={value}" for name, value in MODEL.items())]
    overrides = list(settings)
    return ["verify", url, *overrides, "--queries", "3", *options]


def verified(url, folder, *options):
    """Runs the command in this process, which has already imported the engine."""
    return CliRunner().invoke(app, words(url, folder, *options))


def served(folder, prompt=None, **changes):
    model = ModelSettings(name=str(folder), **MODEL | changes)
    return serving(open_judge(ServiceSettings(model=model, prompt=prompt or Prompt())))


def test_the_models_own_scores_pass(tiny_model):
    with served(tiny_model) as url:
        done = verified(url, tiny_model)
    assert done.exit_code == 0, done.output
    assert "pairs                        42" in done.stdout
    assert "verdict                      the model's own scores" in done.stdout
    assert "rank correlation             1.0000" in done.stdout


@pytest.mark.parametrize(
    ("prompt", "changes", "cause"),
    [
        (Prompt(instruction="Do they match?"), {}, "the prompts differ: wording, labels or order"),
        (
            None,
            {"max_pixels": 3136},
            "the pixel budgets differ: 3136–3136 in the service, 3136–12544 in the reference",
        ),
        (None, {"dtype": "bfloat16"}, "the service computes in bfloat16, the reference in float32"),
    ],
)
def test_other_scores_fail_with_their_cause(tiny_model, prompt, changes, cause):
    with served(tiny_model, prompt, **changes) as url:
        done = verified(url, tiny_model, "--tolerance", "1e-4")
    assert done.exit_code == 1
    assert "NOT the model's own scores" in done.stdout
    assert f"likely cause: {cause}" in done.stdout


def test_a_reference_that_does_not_fit_the_memory(tiny_model, monkeypatch):
    monkeypatch.setattr("judge_service.checks.verify.available_bytes", lambda: 2**20)
    model = ModelSettings(name=str(tiny_model), device="cpu", **MODEL)
    with pytest.raises(
        SettingsError, match=r"weights take 0\.0 GiB in float32, and 0\.0 GiB of memory"
    ):
        check_memory(ServiceSettings(model=model))
    monkeypatch.setattr("judge_service.checks.verify.available_bytes", lambda: 2**30)
    check_memory(ServiceSettings(model=model))


def test_bfloat16_passes_within_its_own_band(tiny_model):
    with served(tiny_model, dtype="bfloat16") as url:
        assert verified(url, tiny_model).exit_code == 0


class Known:
    """A judge that gives every pair the same verdict, and an error for pairs with pictures if an error is
    configured.
    """

    def __init__(self, identity, error=None, yes=0.5):
        self.identity, self.error = identity, error
        self.verdict = Verdict(
            yes_logprob=math.log(yes), no_logprob=math.log(1 - yes), argmax_is_label=True
        )

    async def judge(self, query, candidates):
        return [self.error if self.error and one.image else self.verdict for one in candidates]


def test_pairs_without_a_verdict_give_their_own_reason(identity):
    error = PairError(code="token_count", message="the engine made 261 tokens of a prompt of 257")
    found = asyncio.run(verify(Known(identity, error), Known(identity), queries=3, tolerance=None))
    lost = sum(
        candidate.image is not None for _, candidates in golden_set(3) for candidate in candidates
    )
    assert found.errors == lost
    assert not found.passed
    assert (
        found.lines()[-1]
        == f"{lost} pairs without a verdict from the service: token_count: {error.message}"
    )
    found = asyncio.run(verify(Known(identity), Known(identity, error), queries=3, tolerance=None))
    assert (
        found.lines()[-1]
        == f"{lost} pairs without a verdict from the reference: token_count: {error.message}"
    )
    found = asyncio.run(
        verify(Known(identity, error, yes=0.9), Known(identity), queries=3, tolerance=None)
    )
    assert found.lines()[-1].startswith(
        "likely cause: the identities agree, so the engine's kernels"
    )


def test_pairs_that_neither_side_answers_are_not_compared(identity):
    """For example, both sides lack the same library. Pairs that were not compared cannot pass."""
    error = PairError(code="bad_image", message="no decoder")
    broken = Known(identity, error)
    found = asyncio.run(verify(broken, broken, queries=3, tolerance=None))
    lost = sum(
        candidate.image is not None for _, candidates in golden_set(3) for candidate in candidates
    )
    assert (found.errors, found.unanswered, found.passed) == (0, lost, False)
    assert len(found.differences) == 42 - lost
    lines = found.lines()
    assert f"answered by neither side     {lost}" in lines
    assert lines[-3].endswith(f"not proven: only {42 - lost} of 42 pairs were compared")
    assert lines[-2:] == [
        f"{lost} pairs without a verdict from {side}: bad_image: no decoder"
        for side in ("the service", "the reference")
    ]


def test_a_service_without_a_model_is_refused_before_any_pair_is_scored(identity):
    scripted = Known(identity.model_copy(update={"dtype": "none"}))
    scripted.judge = None
    with pytest.raises(
        SettingsError, match="the service runs no model, so there is nothing to compare"
    ):
        asyncio.run(verify(scripted, Known(identity), queries=1, tolerance=None))


def test_faults_are_reported_before_the_reference_is_loaded(tmp_path, monkeypatch):
    """A bad key file, a bad URL, or a service without a model ends the command before weights are read."""
    from judge_service import backends

    def loaded(_):
        raise AssertionError("the reference was loaded first")

    monkeypatch.setattr(backends, "open_judge", loaded)
    scripted = serving(ScriptedJudge(Prompt()))
    with scripted as url:
        for arguments, message in [
            ((url, "--key-file", str(tmp_path / "none")), "none: "),
            (("http://127.0.0.1:nonsense",), "not a URL"),
            ((url,), "the service runs no model, so there is nothing to compare"),
        ]:
            done = CliRunner().invoke(app, ["verify", *arguments, "model.name=some/model"])
            assert done.exit_code == 1
            assert isinstance(done.exception, UnijudgeError), done.exception
            assert message in str(done.exception)


def test_a_missing_service_is_reported_in_one_line(tiny_model):
    command = [
        sys.executable,
        "-m",
        "unijudge",
        "judge",
        *words("http://127.0.0.1:nonsense", tiny_model),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
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
