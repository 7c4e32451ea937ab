"""A study that is run and resumed: failed steps, foreign folders, its report, and the table of all studies."""

import signal
import subprocess
import sys
import time

import psutil
import pytest
from typer.testing import CliRunner

from tests.trainer.studies.made import ROOT, STEP, run, small_study, write_study
from trainer.studies.cells import cells_of
from trainer.studies.cli import app
from trainer.studies.findings import Results
from trainer.studies.plan import Plan
from trainer.studies.process import CellJob, run_job
from trainer.studies.report import write_study_report
from trainer.studies.study import Measure
from unijudge.errors import DataError, FolderBusy, SettingsError
from unijudge.formats.rankings import Ranking, write_rankings
from unijudge.storage.leases import lease
from unijudge.storage.locations import locate


def test_a_failed_cell_is_named_and_the_others_run(tmp_path):
    progress, ran, lines = run(small_study(), tmp_path / "out")
    assert list(progress.failed) == ["run/k=8,way=bad,seed=1"]
    assert len(ran) == 15
    assert len(progress.done) == 14
    (failed,) = [line for line in lines if "failed" in line]
    assert failed.startswith(
        "run/k=8,way=bad,seed=1: failed: status 1: no luck today (full output:"
    )


def test_the_same_command_runs_only_unfinished_cells(tmp_path):
    run(small_study(), tmp_path / "out")
    _, ran, _ = run(small_study(), tmp_path / "out")
    assert ran == ["run/k=8,way=bad,seed=1"]


def test_cells_that_need_a_failed_cell_are_skipped(tmp_path):
    steps = small_study().model_dump()["steps"]
    steps["after"] = {"command": f"{STEP} world {{out}} {{run}}"}
    progress, _, _ = run(small_study(steps=steps), tmp_path / "out")
    assert progress.left_out == {"after/k=8,way=bad,seed=1"}
    assert "after/k=8,way=good,seed=1" in progress.done


def test_seeds_run_one_after_another(tmp_path):
    _, ran, _ = run(small_study(), tmp_path / "out")
    seeds = [name[-1] for name in ran]
    assert seeds == sorted(seeds)


def test_more_seeds_are_added_to_the_same_folder(tmp_path):
    run(small_study(seeds=[0]), tmp_path / "out")
    _, ran, _ = run(small_study(seeds=[0, 2]), tmp_path / "out")
    assert all(name.endswith("seed=2") for name in ran)
    assert len(ran) == 5


def test_an_output_of_other_settings_is_refused_and_kept(tmp_path):
    run(small_study(seeds=[0]), tmp_path / "out")
    steps = small_study().model_dump()["steps"]
    steps["world"]["command"] += " more"
    with pytest.raises(
        DataError,
        match=r"world/seed=0: this output, or one of its inputs, was made with other settings",
    ):
        Plan.of(small_study(seeds=[0], steps=steps), tmp_path / "out")
    assert (tmp_path / "out/world/seed=0/world.txt").exists()


def test_an_output_that_was_deleted_is_made_again(tmp_path):
    run(small_study(seeds=[0]), tmp_path / "out")
    output = tmp_path / "out/run/k=4,way=bad,seed=0"
    (output / "metrics.json").unlink()
    output.rmdir()
    _, ran, _ = run(small_study(seeds=[0]), tmp_path / "out")
    assert ran == ["run/k=4,way=bad,seed=0"]


def test_a_folder_of_another_study_is_refused(tmp_path):
    run(small_study(seeds=[0]), tmp_path / "out")
    with pytest.raises(SettingsError, match="holds the results of another study"):
        Plan.of(small_study(question="Something else?"), tmp_path / "out")


def test_results_in_a_store_are_refused():
    with pytest.raises(SettingsError, match="the results of a study must be on a local disk"):
        Plan.of(small_study(), locate("memory://results"))


def test_two_runs_of_one_study_do_not_mix(tmp_path):
    with lease(tmp_path / "out"), pytest.raises(FolderBusy):
        run(small_study(), tmp_path / "out")


def test_a_step_that_writes_no_output_has_failed(tmp_path):
    study = small_study(
        seeds=[0], steps={"a": {"command": "true {out}"}}, measures={}, comparisons={}
    )
    progress, _, _ = run(study, tmp_path / "out")
    assert "wrote no {out}" in progress.failed["a/all"]


def test_a_log_that_cannot_be_written_fails_its_step_alone(tmp_path):
    """A full disk and a log without permission end in the same way."""
    (tmp_path / "out/run/k=4,way=good,seed=0.log").mkdir(parents=True)
    progress, ran, _ = run(small_study(seeds=[0]), tmp_path / "out")
    assert list(progress.failed) == ["run/k=4,way=good,seed=0"]
    assert progress.failed["run/k=4,way=good,seed=0"].startswith("[Errno 21] Is a directory")
    assert len(ran) == 5


def test_a_folder_with_spaces_in_its_name(tmp_path):
    progress, _, _ = run(small_study(seeds=[0]), tmp_path / "my results")
    assert len(progress.done) == 5


def test_the_time_of_finished_steps_is_the_estimate(tmp_path):
    steps = small_study().model_dump()["steps"]
    steps["run"]["seconds"] = 5
    study = small_study(seeds=[0], steps=steps)
    assert Plan.of(study, tmp_path / "out").seconds() == {"run": 5, "world": None}
    run(study, tmp_path / "out")
    assert 0 < Plan.of(study, tmp_path / "out").seconds()["run"] < 5


def test_the_service_of_a_step_that_ends_at_once_is_named(tmp_path):
    job = CellJob("a/all", "true {service}", "python -c raise(SystemExit(3))", tmp_path, ROOT)
    assert run_job(job).failure.startswith("the service ended with status 3")


def test_a_process_ends_with_its_parent(tmp_path):
    pid_file = tmp_path / "pid"
    inner = f"import os, time; open({str(pid_file)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    outer = (
        "from pathlib import Path; from trainer.studies.process import CellJob, run_job; "
        f"run_job(CellJob('a', {'python -c ' + repr(inner)!r}, None, Path({str(tmp_path)!r}), Path('.')))"
    )
    process = subprocess.Popen([sys.executable, "-c", outer], cwd=ROOT)
    try:
        pid = _wait_for(lambda: pid_file.exists() and pid_file.read_text())
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    _wait_for(lambda: _is_gone(int(pid)))


def _wait_for(look, seconds=30):
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        if found := look():
            return found
        time.sleep(0.05)
    raise AssertionError("it did not happen")


def _is_gone(pid):
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_the_sentences_of_the_report_follow_from_the_numbers(tmp_path):
    study = small_study()
    run(study, tmp_path / "out")
    sentences = write_study_report(Plan.of(study, tmp_path / "out"))
    assert sentences[0] == (
        "The good way, against the bad one (k 4) helped: score +1.000, [+1.000, +1.000] over 3 seeds."
    )
    table = (tmp_path / "out/table.md").read_text()
    assert "| k 4, way good | 1.410 ± 0.010 (3) |" in table
    assert "| k 8, way bad | 0.810 ± 0.014 (2) |" in table
    assert "14 of 15 steps are finished" in table
    page = (tmp_path / "out/report.html").read_text()
    assert "<svg" in page
    assert "way bad" in page
    assert "Is the good way better?" in page


def test_the_report_gives_the_smallest_detectable_difference(tmp_path):
    """Of four queries, the good way answers one more: the differences are 0 0 0 1, so the half-width is 1.96 · 0.5 /
    √4.
    """
    study = small_study(seeds=[0], axes={"k": [4], "way": {"good": "1", "bad": "0"}}, detect=0.25)
    run(study, tmp_path / "out")
    for way, ranks in (("good", (1, 2, 1, 1)), ("bad", (1, 2, 1, 3))):
        rankings = [
            Ranking(f"q{n}", "s", rank, ["a"], [0.5], ["a"], 3, bytes(16))
            for n, rank in enumerate(ranks)
        ]
        write_rankings(tmp_path / f"out/run/k=4,way={way},seed=0/rankings.parquet", rankings)
    measured = study.model_copy(update={"measures": {"precision@1": Measure(steps=("run",))}})
    *_, said = write_study_report(Plan.of(measured, tmp_path / "out"))
    assert said.startswith(
        "With 4 queries, the smallest detectable difference of precision@1 is 0.490 (95 %, paired by query). "
        "4 queries are too few to detect a difference of 0.25: 16 are needed"
    )
    for name in ("table.md", "report.html"):
        assert said.split("(`")[0] in (tmp_path / "out" / name).read_text()


def test_a_study_without_results_has_no_report(tmp_path):
    with pytest.raises(DataError, match="no measured step of the study is finished"):
        Results.of(Plan.of(small_study(), tmp_path / "out"))


def test_every_cell_is_part_of_the_plan(tmp_path):
    assert set(Plan.of(small_study(), tmp_path / "out").cells) == set(cells_of(small_study()))


def test_measures_of_one_training_are_in_one_row(tmp_path):
    measures = {
        "score": {"steps": ["run"], "file": "metrics.json", "key": "all.score"},
        "again": {"steps": ["again"], "file": "metrics.json", "key": "all.score"},
        "both": {"steps": ["run", "again"], "file": "metrics.json", "key": "all.score"},
    }
    steps = small_study().model_dump()["steps"]
    steps["again"] = {"command": f"{STEP} run {{out}} {{world}} {{k}} {{way}} {{seed}}"}
    study = small_study(
        seeds=[0],
        axes={"k": [4], "way": {"good": "1"}},
        measures=measures,
        comparisons={},
        steps=steps,
    )
    run(study, tmp_path / "out")
    write_study_report(Plan.of(study, tmp_path / "out"))
    rows = [
        line
        for line in (tmp_path / "out/table.md").read_text().splitlines()
        if line.startswith("| ")
    ]
    names = [row.partition(" | ")[0] for row in rows[1:]]
    assert names == ["| k 4, way good", "| run: k 4, way good", "| again: k 4, way good"]
    assert rows[1].count("1.4") == 2


def test_all_studies_are_in_one_file_and_the_text_above_stays(tmp_path):
    study = small_study()
    run(study, tmp_path / "results" / "toy")
    out = tmp_path / "results.md"
    out.write_text("# Results\n\nBy hand.\n\n## What agrees with the paper\n\nold\n")
    for name in ("toy", "other"):
        write_study(tmp_path / "studies" / f"{name}.toml", study)
    for _ in range(2):
        done = CliRunner().invoke(
            app,
            [
                "summary",
                str(out),
                "--studies",
                str(tmp_path / "studies"),
                "--results",
                str(tmp_path / "results"),
            ],
        )
        assert done.exit_code == 0, done.output
    text = out.read_text()
    assert text.startswith("# Results\n\nBy hand.\n\n## What agrees with the paper\n\n| study |")
    claim = "| toy | The good way, against the bad one (k 4) | score | +1.000 | [+1.000, +1.000] |"
    assert text.count(claim) == 1
    assert "## other: Is the good way better?\n\nNot run yet (15 steps)." in text
    assert "| k 8, way bad | 0.810 ± 0.014 (2) |" in text
    assert "old" not in text


def test_a_number_missing_in_some_runs_is_empty_and_one_missing_in_all_is_an_error(tmp_path):
    steps = small_study().model_dump()["steps"]
    measures = {"score": small_study().model_dump()["measures"]["score"]}
    measures["some"] = {"steps": ["run"], "file": "metrics.json", "key": "only_good"}
    study = small_study(
        seeds=[0], axes={"k": [4], "way": {"good": "1", "bad": "0"}}, steps=steps, measures=measures
    )
    run(study, tmp_path / "out")
    with pytest.raises(DataError, match=r"has no number at only_good\. Correct `key`"):
        write_study_report(Plan.of(study, tmp_path / "out"))
    path = tmp_path / "out/run/k=4,way=good,seed=0/metrics.json"
    path.write_text(path.read_text().replace("{", '{"only_good": 7, ', 1))
    write_study_report(Plan.of(study, tmp_path / "out"))
    table = (tmp_path / "out/table.md").read_text()
    assert "| 7.000 (1) |" in table
    assert "| – |" in table
