"""The whole `make demo` with little data: the commands succeed, the folders are complete, and the promised files
exist.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from demo.commands import QUICK, SELECTIONS, STUDENTS
from demo.report.results import Truth
from unijudge.formats.corpus import Corpus
from unijudge.formats.inventory import check
from unijudge.formats.rankings import read_rankings
from unijudge.formats.scores import ScoreManifest
from unijudge.formats.triples import read_triples

pytestmark = pytest.mark.timeout(1500)
TASKS = {"Scenes_t2i", "Scenes_i2t", "Digits_cls", "Digits_i2i"}


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "demo"
    done = subprocess.run(
        [sys.executable, "-m", "demo", out, "--quick", "--seeds", "2"],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (out / "printed.txt").write_text(done.stdout)
    return out


@pytest.fixture(scope="module")
def results(out):
    return json.loads((out / "results.json").read_text())


def test_every_folder_is_complete(out):
    for seed in range(2):
        for name in ("corpus", "vectors", "scores", *SELECTIONS):
            assert "whole" in check(out / f"train-{seed}" / name)
        for name in STUDENTS:
            assert "whole" in check(out / "eval" / f"{name}-{seed}")
    manifest = ScoreManifest.model_validate_json((out / "train-0/scores/manifest.json").read_text())
    assert manifest.judge.backend in {"vllm", "transformers"}
    assert (out / "train-0/scores/part-00000.parquet").read_bytes() != (
        out / "train-1/scores/part-00000.parquet"
    ).read_bytes(), "a seed is another world"


def test_the_judge_and_its_filter_are_measured(results):
    assert 0.5 < results["judge"]["roc_auc_hard"] <= 1
    assert results["judge"]["pairs"] == QUICK.fresh_pairs
    found = results["false_negatives"]
    assert set(found["rate"]) == {"top_k", *SELECTIONS}
    assert 0 < found["rate"]["top_k"] < 1, "false negatives are planted"
    assert found["rate"]["unime_v2"] < found["rate"]["topk_unfiltered"]
    assert 0 < found["precision"] <= 1
    assert set(found["by_task"]) == TASKS


def test_students_are_measured_over_seeds(out, results):
    assert set(results["students"]) == {"base", *STUDENTS}
    for name, tasks in results["students"].items():
        assert set(tasks) == {*TASKS, "mean"}
        for task in TASKS:
            runs = (
                [f"{name}-{seed}-metrics" for seed in range(2)]
                if name != "base"
                else ["base-metrics"]
            )
            values = [
                json.loads((out / "eval" / run / "metrics.json").read_text())["subsets"][task][
                    "precision@1"
                ]
                for run in runs
            ]
            found = tasks[task]["precision_at_1"]
            assert found["seeds"] == len(runs)
            assert found["mean"] == pytest.approx(sum(values) / len(values))
            assert (found["std"] is None) == (name == "base")


def test_reranking_gains_and_losses_add_up(out, results):
    assert (out / "runs/reranker/merged/config.json").exists()
    for name in ("judge", "reranker"):
        measured = json.loads((out / f"eval/rerank-{name}/metrics.json").read_text())["subsets"]
        for task in TASKS:
            found = results["rerank"][task]
            assert found["before"] == pytest.approx(measured[task]["precision@1 before"])
            assert found[name] == pytest.approx(measured[task]["precision@1"])
            assert found[f"{name}_gained"] == pytest.approx(measured[task]["gained"])
            assert found[f"{name}_lost"] == pytest.approx(measured[task]["lost"])
    judged = [
        ranking
        for ranking in read_rankings(out / "eval/rerank-judge/rankings.parquet")
        if ranking.log_odds
    ]
    assert len(judged) == 2 * QUICK.eval_scenes + 2 * (QUICK.eval_scenes // 5)


def altered(out, way, *words):
    """Runs `demo.altered` on the first training world. Returns its rows by query, and its counts."""
    folder = out / "altered" / "-".join([way, *words]).replace("--", "")
    corpus = out / "train-0/corpus"
    places = {
        "mixed": (out / "train-0/random", corpus),
        "planted": (out / "train-0/scores", corpus, out / "data/train-0"),
    }[way]
    run("demo.altered", way, out / "train-0/unime_v2", *places, folder, *words)
    rows = {row.query_id: row for row in read_triples(folder, Corpus(corpus).fingerprint)}
    return rows, json.loads((folder / "altered.json").read_text())


def run(module, *words):
    command = [sys.executable, "-m", module, *map(str, words)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2]
    )
    assert done.returncode == 0, done.stderr


def test_a_share_of_the_negatives_is_taken_from_another_selection(out):
    rows, found = altered(out, "mixed", "--share", "0.5")
    fingerprint = Corpus(out / "train-0/corpus").fingerprint

    def negatives(name):
        selected = read_triples(out / "train-0" / name, fingerprint)
        return {row.query_id: {one.item_id for one in row.negatives} for row in selected}

    before, other = negatives("unime_v2"), negatives("random")
    assert rows.keys() == before.keys()
    taken = 0
    for query_id, row in rows.items():
        assert len(row.negatives) == 8
        there = {one.item_id for one in row.negatives}
        assert there <= before[query_id] | other.get(query_id, set())
        taken += len(there - before[query_id])
    assert found["rows"] == len(rows)
    assert 0 < taken <= found["replaced"] <= 4 * len(rows)


def test_planted_negatives_are_right_and_the_judge_may_refuse_them(out):
    truth = Truth.of_seed(out, 0)

    def right(rows):
        negatives = [(row, one) for row in rows.values() for one in row.negatives]
        return sum(truth.is_right(truth.query(row.query_id), one) for row, one in negatives)

    (none, _), (half, found), (filtered, kept) = (
        altered(out, "planted", "--share", share, *more)
        for share, more in (("0", ()), ("0.5", ()), ("0.5", ("--filter",)))
    )
    assert right(half) >= right(none) + found["replaced"] // 2 > right(none)
    assert kept["replaced"] < found["replaced"]
    assert right(filtered) < right(half)


def test_graded_truth_is_measured(out):
    evaluation = out / "eval/base-metrics"
    run("demo.graded", out / "data/eval", out / "eval/corpus", evaluation, out / "graded")
    found = json.loads((out / "graded" / "graded.json").read_text())
    assert set(found["subsets"]) == {"Scenes_t2i", "Scenes_i2t"}
    plain = json.loads((evaluation / "metrics.json").read_text())["subsets"]
    for subset, value in found["subsets"].items():
        assert plain[subset]["precision@1"] * 0.2 < value < 1, "half a truth counts too"


def test_the_report_has_charts_and_sentences(out, results):
    html = (out / "report.html").read_text()
    assert html.count("<svg") == 5
    assert html.count("<img") > 20
    for name, tasks in results["students"].items():
        assert name.replace("_", " ") in html
        assert f"{tasks['mean']['precision_at_1']['mean']:.3f}" in html
    assert "twice the standard error over" in html
    printed = (out / "printed.txt").read_text()
    assert f"ROC-AUC of {results['judge']['roc_auc']:.3f}" in printed
    assert f"ROC-AUC of {results['judge']['roc_auc']:.3f}" in html
    for name in ("mined.png", "students.png"):
        with Image.open(out / name) as image:
            assert image.width > 600


def test_a_foreign_folder_is_not_changed(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    done = subprocess.run(
        [sys.executable, "-m", "demo", tmp_path], capture_output=True, text=True, check=False,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 1
    assert "was not made by the demo. Give another folder" in done.stderr
    assert (tmp_path / "mine.txt").read_text() == "keep"
