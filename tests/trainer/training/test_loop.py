"""The loop with a model of three parameters: resuming to the last bit, order, schedule and non-finite losses."""

import json
import math

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import nn

from tests.trainer.training.toy_training import DATA, SETTINGS, ToyTask, lines, order_of, train
from trainer.losses.terms import Observed
from trainer.training import run_folder
from trainer.training.loop import fit
from trainer.training.run_folder import Run
from unijudge.errors import DataError, NonFiniteLoss, TrainingError
from unijudge.formats.inventory import check, describe


@pytest.mark.parametrize("stop_at", [3, 8])
def test_an_interrupted_run_ends_where_an_uninterrupted_one_does(tmp_path, stop_at, caplog):
    """The results are equal to the last bit, with dropout: weights, optimizer, schedule and order of rows.

    The random numbers of dropout depend on the step.
    """
    caplog.set_level("INFO")
    whole, run, _ = train(tmp_path / "whole")
    train(tmp_path / "twice", stop_at=stop_at)
    assert "resuming" not in caplog.text
    resumed, again, steps = train(tmp_path / "twice")
    assert ("twice: resuming from step 5" in caplog.text) == (stop_at == 8)
    assert steps[0] == (6 if stop_at == 8 else 1)
    assert torch.equal(whole.weight, resumed.weight)
    assert lines(run) == lines(again)
    assert [line["step"] for line in lines(again)] == list(range(1, 13))
    assert (again.adapter / "weights.pt").exists()


def test_an_unfinished_run_is_described_as_unfinished(tmp_path):
    train(tmp_path / "run", stop_at=8)
    told = describe(tmp_path / "run").splitlines()
    assert told[0] == f"{tmp_path / 'run'}: run; 1 files missing, first adapter"
    assert [line.split()[1] for line in told if line.split()[0] == "settings.max_steps"] == ["12"]
    begun = [line for line in told if "made." in line]
    with pytest.raises(DataError, match="1 files are missing, first adapter"):
        check(tmp_path / "run")
    train(tmp_path / "run")
    assert check(tmp_path / "run").endswith("run, whole: 12 steps and 0 files of weights read")
    assert (
        [line for line in describe(tmp_path / "run").splitlines() if "made." in line] == begun != []
    )


def test_a_training_lowers_the_loss(tmp_path):
    def sum_of_inputs(module, batch):
        return {"squared": ((module(batch) - batch.sum(1, keepdim=True)) ** 2).mean()}

    model, run, _ = train(
        tmp_path / "run", loss=sum_of_inputs, settings=SETTINGS.model_copy(update={"max_steps": 60})
    )
    assert (model.weight - 1).abs().max() < 0.1
    assert lines(run)[-1]["loss"] < 0.05 < lines(run)[0]["loss"]


def test_terms_are_summed_and_logged_by_name(tmp_path):
    def two(module, batch):
        return {"squared": (module(batch) ** 2).mean(), "shrink": 0.5 * module.weight.pow(2).sum()}

    def one(module, batch):
        return {"sum": (module(batch) ** 2).mean() + 0.5 * module.weight.pow(2).sum()}

    apart, run, _ = train(tmp_path / "apart", loss=two)
    together, _, _ = train(tmp_path / "together", loss=one)
    assert (apart.weight - together.weight).abs().max() < 1e-6
    for line in lines(run):
        assert line["loss"] == pytest.approx(line["squared"] + line["shrink"])


def test_a_value_of_some_batches_is_the_mean_over_their_rows(tmp_path):
    """Rows without a judge's score have no entropy. They must not reduce the mean entropy of the other rows."""
    marked = DATA.flatten()[0].item()

    def watched(module, batch):
        seen = {} if (batch == marked).any() else {"size": Observed(batch.abs().mean())}
        return {"squared": (module(batch) ** 2).mean()} | seen

    _, run, _ = train(
        tmp_path / "run",
        loss=watched,
        settings=SETTINGS.model_copy(update={"gradient_accumulation_steps": 2}),
    )
    partly = 0
    for line in lines(run):
        batches = order_of(SETTINGS.model_copy(update={"gradient_accumulation_steps": 2})).batches(
            line["step"]
        )
        showing = [rows for rows in batches if 0 not in rows]
        partly += 0 < len(showing) < len(batches)
        assert not any(name.startswith("share") for name in line)
        if showing:
            assert line["size"] == pytest.approx(DATA[np.concatenate(showing)].abs().mean().item())
    assert partly


def test_observed_values_are_logged_and_have_no_gradient(tmp_path):
    def plain(module, batch):
        return {"squared": (module(batch) ** 2).mean()}

    def watched(module, batch):
        return plain(module, batch) | {
            "size": Observed(batch.abs().mean()),
            "pull": Observed(module.weight.sum()),
        }

    bare, unwatched, _ = train(tmp_path / "bare", loss=plain)
    model, run, _ = train(tmp_path / "run", loss=watched)
    assert torch.equal(model.weight, bare.weight)
    for line, other in zip(lines(run), lines(unwatched), strict=True):
        rows = np.concatenate(order_of(SETTINGS).batches(line["step"]))
        assert line.pop("size") == pytest.approx(DATA[rows].abs().mean().item())
        assert math.isfinite(line.pop("pull"))
        assert line == other


def test_a_non_finite_loss_stops_before_the_update(tmp_path):
    seen = []

    def loss(module, batch):
        seen.append(module.weight.detach().clone())
        value = module(batch).mean()
        return {"mean": value * float("nan") if len(seen) == 5 else value}

    with pytest.raises(NonFiniteLoss, match="step 3: loss nan"):
        train(tmp_path / "run", loss=loss)
    assert not (tmp_path / "run" / "adapter").exists()


def test_a_model_without_trainable_parameters_is_refused(tmp_path):
    model = nn.Linear(1, 1).requires_grad_(False)
    with pytest.raises(TrainingError, match="no parameter of the model requires a gradient"):
        fit(
            ToyTask(model, None),
            order_of(SETTINGS),
            Run(tmp_path, SETTINGS, {}),
            SETTINGS,
            print,
            Accelerator(cpu=True),
        )


def test_other_settings_are_another_run(tmp_path):
    train(tmp_path / "run", stop_at=1)
    with pytest.raises(
        DataError, match=r"with other settings or inputs: max_steps was 12, is 13\. Give another"
    ):
        Run(tmp_path / "run", SETTINGS.model_copy(update={"max_steps": 13}), {})
    Run(tmp_path / "run", SETTINGS.model_copy(update={"workers": 0}), {})
    Run(tmp_path / "more", SETTINGS, {"the rows": "1"})
    with pytest.raises(DataError, match="with other settings or inputs: the rows differ"):
        Run(tmp_path / "more", SETTINGS, {"the rows": "2"})
    with pytest.raises(DataError, match="with other settings or inputs: the base model differ"):
        Run(tmp_path / "more", SETTINGS, {"the rows": "1", "the base model": "2"})


def test_a_setting_that_a_run_does_not_name_had_its_default(tmp_path):
    """The run is from an older program without this setting. Only the default value is accepted now."""
    Run(tmp_path, SETTINGS, {})
    begun = json.loads((tmp_path / "settings.json").read_text())
    del begun["settings"]["weight_decay"]
    (tmp_path / "settings.json").write_text(json.dumps(begun))
    Run(tmp_path, SETTINGS, {})
    with pytest.raises(
        DataError, match=r"with other settings or inputs: weight_decay was 0\.0, is 0\.5"
    ):
        Run(tmp_path, SETTINGS.model_copy(update={"weight_decay": 0.5}), {})
    begun["settings"]["momentum"] = 0.9
    (tmp_path / "settings.json").write_text(json.dumps(begun))
    with pytest.raises(
        DataError,
        match=r"settings\.json: not the settings of this kind of training in this version .momentum: Extra",
    ):
        Run(tmp_path, SETTINGS, {})


def test_a_run_resumed_with_other_libraries_warns_and_records_them(tmp_path, monkeypatch, caplog):
    run = Run(tmp_path, SETTINGS, {})
    before = (tmp_path / "environment.json").read_bytes()
    run.note_versions()
    assert (caplog.text, (tmp_path / "environment.json").read_bytes()) == ("", before)
    real = run_folder.version
    monkeypatch.setattr(run_folder, "version", lambda name: "99" if name == "torch" else real(name))
    for _ in range(2):
        Run(tmp_path, SETTINGS, {}).note_versions()
    (message,) = caplog.messages
    assert (
        f"resumes with other versions of its libraries: torch 99 (was {real('torch')})" in message
    )
    noted = json.loads((tmp_path / "environment.json").read_text())
    assert noted == json.loads(before) | {"torch": f"{real('torch')}, then 99"}
