"""A study that is resumed on another machine from finished.jsonl alone."""

import json
import shutil

import pytest

from tests.trainer.studies.made import run, small_study
from trainer.studies.finished import FINISHED, read_finished
from trainer.studies.plan import Plan
from trainer.studies.report import write_study_report
from trainer.studies.study import Measure
from unijudge.errors import DataError
from unijudge.formats.rankings import Ranking, write_rankings

AXES = {"k": [4], "way": {"good": "1", "bad": "0"}}


@pytest.fixture
def elsewhere(tmp_path):
    """The folder of results on another machine. It has only finished.jsonl."""
    study = small_study(seeds=[0], axes=AXES)
    run(study, tmp_path / "here")
    write_study_report(Plan.of(study, tmp_path / "here"))
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    shutil.copy(tmp_path / "here" / FINISHED, folder)
    return folder


def test_a_copy_of_the_file_is_enough_for_the_report(elsewhere):
    study = small_study(seeds=[0], axes=AXES)
    _, ran, _ = run(study, elsewhere)
    assert ran == []
    write_study_report(Plan.of(study, elsewhere))
    here = elsewhere.with_name("here")
    assert (elsewhere / "table.md").read_text() == (here / "table.md").read_text()
    assert (elsewhere / FINISHED).read_bytes() == (here / FINISHED).read_bytes()


def test_more_seeds_run_without_the_finished_ones(elsewhere):
    study = small_study(seeds=[0, 2], axes=AXES)
    progress, ran, _ = run(study, elsewhere)
    assert sorted(ran) == ["run/k=4,way=bad,seed=2", "run/k=4,way=good,seed=2", "world/seed=2"]
    assert len(progress.done) == 6
    write_study_report(Plan.of(study, elsewhere))
    assert len(read_finished(elsewhere)) == 6
    assert "| k 4, way good | 1.410 ± 0.014 (2) |" in (elsewhere / "table.md").read_text()


def test_a_step_whose_output_is_needed_runs_again(elsewhere):
    """The world of seed 0 finished elsewhere, but the new value of the axis needs its output."""
    study = small_study(seeds=[0], axes=AXES | {"k": [4, 8]})
    _, ran, _ = run(study, elsewhere)
    assert sorted(ran) == ["run/k=8,way=bad,seed=0", "run/k=8,way=good,seed=0", "world/seed=0"]


def test_a_new_measure_runs_the_measured_steps_again(elsewhere):
    score = small_study().measures["score"]
    study = small_study(seeds=[0], axes=AXES, measures={"score": score, "again": score})
    _, ran, _ = run(study, elsewhere)
    assert len(ran) == 3


def test_an_output_that_was_deleted_here_is_made_again(tmp_path, elsewhere):
    here = tmp_path / "here"
    shutil.rmtree(here / "run/k=4,way=bad,seed=0")
    _, ran, _ = run(small_study(seeds=[0], axes=AXES), here)
    assert ran == ["run/k=4,way=bad,seed=0"]


def test_steps_of_other_settings_are_refused(elsewhere):
    steps = small_study().model_dump()["steps"]
    steps["world"]["command"] += " more"
    with pytest.raises(
        DataError, match=r"finished\.jsonl: run/.* was made with other settings .*Delete its line"
    ):
        Plan.of(small_study(seeds=[0], axes=AXES, steps=steps), elsewhere)


@pytest.mark.parametrize("line", ["{", "[]", '{"name": "a"}', '{"nan": NaN}'])
def test_a_damaged_line_is_named(elsewhere, line):
    with (elsewhere / FINISHED).open("a") as file:
        file.write(line + "\n")
    with pytest.raises(
        DataError, match=r"finished\.jsonl:4: not a finished step .*Delete this line"
    ):
        Plan.of(small_study(seeds=[0], axes=AXES), elsewhere)


def test_the_results_of_single_queries_are_in_the_file(tmp_path):
    """A comparison paired by query gives the same interval from the file as from the rankings."""
    measures = {"precision@1": Measure(steps=("run",))}
    study = small_study(seeds=[0], axes=AXES, measures=measures)
    run(study, tmp_path / "here")
    for way, ranks in (("good", (1, 2, 1, 1, 1, 1, 1, 1, 2)), ("bad", (1, 2, 1, 3, 1, 2, 1, 1, 1))):
        rankings = [
            Ranking(f"q{n}", "s", rank, ["a"], [0.5], ["a"], 3, bytes(16))
            for n, rank in enumerate(ranks)
        ]
        write_rankings(tmp_path / f"here/run/k=4,way={way},seed=0/rankings.parquet", rankings)
    sentences = write_study_report(Plan.of(study, tmp_path / "here"))
    assert "over queries" in sentences[0]
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(tmp_path / "here" / FINISHED, tmp_path / "elsewhere")
    assert write_study_report(Plan.of(study, tmp_path / "elsewhere")) == sentences


def test_a_missing_number_of_a_step_is_also_missing_elsewhere(tmp_path):
    measures = small_study().measures | {
        "some": Measure(steps=("run",), file="metrics.json", key="some")
    }
    study = small_study(seeds=[0], axes=AXES, measures=measures)
    run(study, tmp_path / "here")
    metrics = tmp_path / "here/run/k=4,way=good,seed=0/metrics.json"
    metrics.write_text(json.dumps(json.loads(metrics.read_text()) | {"some": 7}))
    write_study_report(Plan.of(study, tmp_path / "here"))
    finished = read_finished(tmp_path / "here")
    assert finished["run/k=4,way=good,seed=0"].measures["some"].value == 7
    assert finished["run/k=4,way=bad,seed=0"].measures["some"] is None


def test_the_times_of_finished_steps_are_the_estimate(elsewhere):
    seconds = Plan.of(small_study(seeds=[0, 1], axes=AXES), elsewhere).seconds()
    assert seconds["run"] > 0
    assert seconds["world"] > 0
