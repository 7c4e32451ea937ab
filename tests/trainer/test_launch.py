"""How several processes are started: torchrun and the real command line; what accelerate makes of the recipes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env

from tests.trainer.test_embedder import run_settings
from unijudge.settings import overrides_of

ROOT = Path(__file__).parents[2]


def test_the_command_line_under_a_launcher(corpus, triples, model, tmp_path):
    """torchrun, as the help says; the first process alone tells."""
    anywhere = model.model_copy(update={"device": "cpu" if torch.cuda.is_available() else "auto"})
    settings = run_settings(corpus, triples, anywhere, tmp_path / "run", steps=2, batch_size=2, accumulate=2)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "unijudge",
               "train", "embedder"]  # fmt: skip
    for override in overrides_of(settings):
        command += ["--set", override]
    told = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
    assert told.stdout.count("the trained adapter") == 1
    lines = [json.loads(line) for line in (settings.out / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    begun = json.loads((settings.out / "settings.json").read_text())
    assert begun["made"]["command"].startswith("unijudge train embedder --set")


@pytest.mark.parametrize(("recipe", "wanted"), [
    ("ddp", {}),
    ("fsdp", {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_CPU_RAM_EFFICIENT_LOADING": "false"}),
])  # fmt: skip
def test_accelerate_takes_the_recipes(monkeypatch, recipe, wanted):
    """As far as the environment that its launcher gives to the processes."""
    path = str(ROOT / "deploy" / "recipes" / "accelerate" / f"{recipe}.yaml")
    asked = launch_command_parser().parse_args(["--config_file", path, "-m", "unijudge", "train", "embedder"])
    args, _, _ = _validate_launch_command(asked)
    assert (args.num_processes, args.module, args.training_script) == (8, True, "unijudge")
    made = prepare_multi_gpu_env(args)
    assert {name: made.get(name) for name in wanted} == wanted
    assert "ACCELERATE_USE_FSDP" in made or recipe == "ddp"
