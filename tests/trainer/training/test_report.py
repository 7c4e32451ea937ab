"""The page of a run: numbers, curves, and differences between runs, also of unfinished and damaged runs."""

import re

import pytest
from typer.testing import CliRunner

from trainer.cli import app
from trainer.losses.settings import LossSettings
from trainer.training.report import Reading, write_report
from trainer.training.run_folder import Run
from trainer.training.settings import LoopSettings
from unijudge.errors import DataError
from unijudge.pages.charts import SERIES


def make_run(folder, *, steps=20, finished=True, terms=("kl", "in_batch"), seed=1, settings=None):
    """A run whose loss equals its step."""
    run = Run(folder, settings or LoopSettings(max_steps=20, seed=seed), {"the rows": "5e1ec7ed"})
    for step in range(1, steps + 1):
        values = {name: step / len(terms) for name in terms}
        run.log(step=step, loss=float(step), **values, student_entropy=0.5, teacher_entropy=0.25, teacher_one_hot=0.125,
                gradient_norm=1.0, learning_rate=1e-4)  # fmt: skip
    if finished:
        run.adapter.mkdir()
    return folder


class Taught(LoopSettings):
    """A judge's labels, with the values that a page reads."""

    out: str
    loss: LossSettings


def labels(html):
    """The label of the y axis of each chart."""
    return re.findall(r'<text x="4" y="12">([^<]+)</text>', html)


def test_one_run_has_a_curve_for_each_metric_and_all_that_made_it(tmp_path):
    write_report([make_run(tmp_path / "run<1>")], tmp_path / "report.html")
    html = (tmp_path / "report.html").read_text()
    assert labels(html) == ["loss", "nats", "share of rows", "gradient norm", "learning rate"]
    legends = re.findall(r'<rect class="key s\d"[^>]*/><text[^>]*>([^<]+)</text>', html)
    assert legends == [
        "loss",
        "kl",
        "in batch",
        "teacher entropy",
        "student entropy",
        "teacher one hot",
    ]
    assert re.search(
        r"<td>20 of 20</td>\s*<td>19.5</td><td>0.25</td><td>0.5</td><td>0.125</td>", html
    ), "means of 19, 20"
    assert "finished" in html
    assert "not finished" not in html
    for fact in (
        "settings.seed",
        "inputs.the rows",
        "5e1ec7ed",
        "made.created",
        "environment.torch",
    ):
        assert fact in html
    assert "run&lt;1&gt;" in html
    assert "<1>" not in html
    assert not re.search(r'(?:src|href)="|<script|@import|url\(', html), "nothing from elsewhere"


def test_only_a_page_of_train_report_is_replaced(tmp_path):
    run, page = make_run(tmp_path / "run"), tmp_path / "report.html"
    for _ in range(2):
        write_report([run], page)
    page.write_text("<p>notes</p>")
    with pytest.raises(
        DataError,
        match=r"report\.html: exists already, but is not this command's output .page of `train report`.",
    ):
        write_report([run], page)
    assert page.read_text() == "<p>notes</p>"


def test_the_only_term_of_a_loss_is_the_loss(tmp_path):
    assert Reading.of(make_run(tmp_path / "run", terms=("kl",))).terms == []


def test_several_runs_share_a_chart_and_their_differences_come_first(tmp_path):
    one = make_run(tmp_path / "one")
    two = make_run(
        tmp_path / "two", terms=("pairwise", "listwise"), seed=2, steps=5, finished=False
    )
    write_report([one, two], tmp_path / "report.html")
    html = (tmp_path / "report.html").read_text()
    assert labels(html)[:5] == ["loss", "kl", "in batch", "pairwise", "listwise"]
    charts = html.split('role="img"')[1:]
    assert all(chart.count('class="key') == 2 for chart in charts), (
        "a run has the same colour in every chart"
    )
    drawn = [
        len(points.split())
        for points in re.findall(r'class="line s\d" points="([^"]*)"', charts[0])
    ]
    assert drawn == [20, 5]
    assert "5 of 20" in html
    assert "not finished" in html
    differs, same = html.split("What differs")[1].split("What all runs share")
    assert re.search(r'settings.seed</td><td class="text">1</td><td class="text">2</td>', differs)
    assert "settings.batch_size" in same
    assert "settings.batch_size" not in differs


def test_incomparable_losses_are_warned_of_once(tmp_path):
    """Facts that always differ, such as the folder and the time of a run, do not explain a difference."""
    runs = [tmp_path / name for name in ("a", "b", "c")]
    for run, name in zip(runs, ("kl", "infonce", "kl"), strict=True):
        settings = Taught(max_steps=20, out=str(run), loss=LossSettings(name=name))
        make_run(run, settings=settings, terms=(name, "in_batch"))
    pages = []
    for chosen in (runs, [runs[0], runs[2]]):
        write_report(chosen, tmp_path / "report.html")
        pages.append((tmp_path / "report.html").read_text())
    different, same = pages
    assert different.count("not comparable") == 1
    assert (
        "not comparable"
        in different.split('<text x="4" y="12">loss</text>')[1].split("</figure>")[0]
    )
    assert "not comparable" not in same
    assert [page.count("Mean entropies of Q") for page in pages] == [1, 1]
    assert "loss.name" in different.split("What differs")[1].split("What all runs share")[0]
    assert str(runs[0]) not in different
    assert "What differs" not in same


def test_a_line_that_is_being_written_is_left_out_and_a_broken_one_is_named(tmp_path):
    folder = make_run(tmp_path / "run", steps=3)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    assert [line["step"] for line in Reading.of(folder).steps] == [1, 2, 3]
    with (folder / "metrics.jsonl").open("a") as file:
        file.write("\n")
    with pytest.raises(
        DataError, match=r"metrics\.jsonl:4: not the metrics of a step .Invalid JSON"
    ):
        Reading.of(folder)


def test_too_many_runs_or_other_folders_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"settings\.json: no such file"):
        write_report([tmp_path], tmp_path / "report.html")
    with pytest.raises(DataError, match="no step is logged yet"):
        write_report([make_run(tmp_path / "run", steps=0)], tmp_path / "report.html")
    with pytest.raises(DataError, match=f"Give at most {SERIES}"):
        write_report([tmp_path / "run"] * (SERIES + 1), tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_the_command_writes_into_the_run_or_to_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs = [str(make_run(tmp_path / name / "run")) for name in ("a", "b")]
    for arguments, page in (
        (runs[:1], tmp_path / "a" / "run" / "report.html"),
        (runs, tmp_path / "report.html"),
        ([*runs, "--out", "both.html"], tmp_path / "both.html"),
    ):
        result = CliRunner().invoke(app, ["report", *arguments])
        assert result.exit_code == 0, result.output
        assert page.exists()
    html = (tmp_path / "both.html").read_text()
    assert all(run in html for run in runs), "runs of one name are told apart by their folders"
