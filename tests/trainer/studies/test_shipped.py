"""The studies in the repository can run: their commands, settings and inputs exist."""

import re
import shutil

import pytest

from judge_service.settings import ServiceSettings
from miner.selection.settings import SelectSettings
from miner.settings import ScoreSettings
from tests.trainer.studies.made import ROOT
from trainer.embedding.settings import EmbedSettings
from trainer.evaluation.settings import EvaluateSettings
from trainer.studies.cells import cells_of
from trainer.studies.commands import check_commands
from trainer.studies.finished import FINISHED
from trainer.studies.plan import Plan
from trainer.studies.report import summary
from trainer.studies.study import read_study
from trainer.training.settings import EmbedderSettings
from unijudge.job import is_setting
from unijudge.settings import load_settings

STUDIES = sorted((ROOT / "studies").glob("*.toml"))
KINDS = {
    "train embedder": EmbedderSettings,
    "train embed": EmbedSettings,
    "train evaluate": EvaluateSettings,
    "mine select": SelectSettings,
    "mine score": ScoreSettings,
}


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_shipped_study_is_valid(path):
    study = read_study(path, [])
    cells = cells_of(study)
    check_commands(cells.values())
    assert study.measures
    for comparison in study.comparisons.values():
        assert study.seeds[:1] == (0,)
        assert comparison.claim[0].isupper()


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_the_settings_of_its_commands_are_known(path):
    one_of_each_step = {cell.step: cell for cell in cells_of(read_study(path, [])).values()}
    for cell in one_of_each_step.values():
        program, *words = cell.command.split()
        kind = KINDS.get(" ".join(words[:2]))
        if program == "unijudge" and kind is not None:
            load_settings(kind, None, list(filter(is_setting, words)))
        if cell.service:
            load_settings(
                ServiceSettings,
                None,
                list(filter(is_setting, cell.service.replace("{port}", "1").split())),
            )


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_the_inputs_that_a_study_takes_from_worlds_exist(path):
    worlds = cells_of(read_study(ROOT / "studies" / "worlds.toml", []))
    study = read_study(path, [])
    for cell in cells_of(study).values():
        for place in re.findall(r"build/studies/worlds/([a-z_]+/[a-z=0-9]+)", cell.command):
            assert place in worlds, f"{cell.name}: {place}"


def test_the_page_of_results_holds_what_the_finished_steps_say(tmp_path):
    """`unijudge study summary` writes docs/results.md from studies/finished/."""
    for kept in (ROOT / "studies" / "finished").glob("*.jsonl"):
        (tmp_path / kept.stem).mkdir()
        shutil.copy(kept, tmp_path / kept.stem / FINISHED)
    plans = {path.stem: Plan.of(read_study(path, []), tmp_path / path.stem) for path in STUDIES}
    assert (ROOT / "docs" / "results.md").read_text().endswith(summary(plans))
