"""The start of several processes: torchrun and the real command line, and accelerate with the recipes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env

from tests.trainer.runs import run_settings
from trainer import cli
from trainer.training.distributed import LAUNCHED
from unijudge.settings import overrides_of

ROOT = Path(__file__).parents[3]


def test_the_command_line_under_a_launcher(corpus, triples, model, tmp_path):
    """torchrun starts the command as its help shows. Only the first process prints."""
    anywhere = model.model_copy(update={"device": "cpu" if torch.cuda.is_available() else "auto"})
    settings = run_settings(
        corpus,
        triples,
        anywhere,
        tmp_path / "run",
        max_steps=2,
        batch_size=2,
        gradient_accumulation_steps=2,
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "unijudge",
               "train", "embedder"]  # fmt: skip
    for override in overrides_of(settings):
        command += [override]
    told = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
    assert told.stdout.count("The trained adapter") == 1
    lines = [json.loads(line) for line in (settings.out / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    begun = json.loads((settings.out / "settings.json").read_text())
    assert begun["made"]["command"].startswith("unijudge train embedder ")


@pytest.mark.parametrize(("recipe", "wanted"), [
    ("ddp", {}),
    ("fsdp", {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_CPU_RAM_EFFICIENT_LOADING": "false"}),
])  # fmt: skip
def test_accelerate_takes_the_recipes(monkeypatch, recipe, wanted):
    """The test goes as far as the environment that accelerate's launcher gives to the processes."""
    path = str(ROOT / "deploy" / "recipes" / "accelerate" / f"{recipe}.yaml")
    asked = launch_command_parser().parse_args(
        ["--config_file", path, "-m", "unijudge", "train", "embedder"]
    )
    args, _, _ = _validate_launch_command(asked)
    assert (args.num_processes, args.module, args.training_script) == (8, True, "unijudge")
    made = prepare_multi_gpu_env(args)
    assert {name: made.get(name) for name in wanted} == wanted
    assert "ACCELERATE_USE_FSDP" in made or recipe == "ddp"


@pytest.mark.parametrize(
    ("variables", "named"),
    [({"LOCAL_RANK": ""}, "LOCAL_RANK"), ({"RANK": "0", "WORLD_SIZE": "2"}, "RANK, WORLD_SIZE")],
)
def test_launcher_variables_that_no_launcher_set_are_named(tmp_path, variables, named):
    """The variables are a cluster's own, or belong to another job. torch and accelerate only check that the numbers fit
    together.
    """
    program = (
        "from trainer.training.distributed import processes\n"
        f"with processes('cpu', {str(tmp_path / 'out')!r}): pass"
    )
    plain = {name: value for name, value in os.environ.items() if name not in LAUNCHED}
    done = subprocess.run(
        [sys.executable, "-c", program],
        check=False,
        capture_output=True,
        text=True,
        env=plain | variables,
        cwd=ROOT,
    )
    assert (
        "SettingsError: the processes of this job cannot join each other with the launcher's environment variables"
        in done.stderr
    )
    assert f"Unset {named}, or start all processes with torchrun" in done.stderr


@pytest.mark.parametrize(
    ("variables", "is_told"),
    [
        ({}, True),
        ({"RANK": "1"}, True),
        ({"RANK": "1", "WORLD_SIZE": "1"}, True),
        ({"RANK": "1", "WORLD_SIZE": "2"}, False),
    ],
)
def test_a_single_process_with_launcher_variables_prints_what_it_did(
    monkeypatch, capsys, variables, is_told
):
    for name in LAUNCHED:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    cli._tell_once("done")
    assert capsys.readouterr().out == "done\n" * is_told
