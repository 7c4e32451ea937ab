"""`make gpu`: a dry run without engines, a model that is broken, processes that die, and figures worked out by hand."""

import doctest
import json
import os
import re
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest

from bench import peaks
from bench.gpu import case, judging, lines, parity, search, serving, step, training
from bench.gpu.lines import one_line
from bench.gpu.models import JUDGES, STUDENTS
from bench.gpu.options import Options
from bench.gpu.page import page
from bench.gpu.running import ROOT, _outcome, _watched
from bench.gpu.step import Case, Outcome, Skipped, Step, Table, Wrong
from bench.gpu.steps import NAMES, STEPS
from tests.bench.gpu_measuring import OWN_PATH, measure, states
from unijudge.errors import ModelError


def test_a_dry_run_without_engines(tmp_path):
    """The run has no torch, no transformers and no libraries of the trainer.

    The page is complete, and names the reason of each skipped step.
    """
    status, text, outcomes = measure(
        tmp_path, hidden=("vllm", "ray", "faiss", "bitsandbytes", "sklearn")
    )
    assert status == 0, text
    assert {name for name, state in states(outcomes).items() if state == "skipped"} == {
        "parity/vllm-float32", "parity/vllm-float32-head", "parity/vllm-bfloat16-head", "judge/vllm",
        "judge/vllm-graphs", "service/serve", "faiss/knn", "nf4/nf4",
    }  # fmt: skip
    assert set(states(outcomes).values()) == {"ok", "skipped"}

    # The page has every step, every case with its outcome, no empty cell, and no path of this machine.
    assert [each.title for each in STEPS] == re.findall(r"^## (.+)$", text, re.MULTILINE)[2:]
    for each in STEPS:
        for one in each.cases.values():
            row = rf"^\| {each.title} \| {re.escape(one.title)} \| .* \| (ok|skipped: .+) \|$"
            assert re.search(row, text, re.MULTILINE)
    assert "skipped: not installed: vllm" in text
    assert "| vLLM, bfloat16, head in float32 | not measured |" in text
    assert "||" not in text.replace(" ", "").replace("||found|", "")
    assert not OWN_PATH.search(text)

    # In the figures, bfloat16 rounds, and checkpointing changes no useful work.
    exact, rounded = (
        outcomes["parity"][way]["figures"]["log_odds"] for way in list(parity.STEP.cases)[:2]
    )
    assert 0 < max(parity.differences(rounded, exact)) < 0.5
    kept, again = (outcomes["trainer"][way]["figures"] for way in ("kept", "checkpointing"))
    assert kept["rows"] == again["rows"] == 2
    assert kept["flops"] == again["flops"] > 0
    assert (
        outcomes["judge"]["transformers"]["figures"]["scenarios"].keys() == judging.SCENARIOS.keys()
    )


def test_a_broken_model_fails_only_its_own_cases(tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text("{")
    status, text, outcomes = measure(
        tmp_path / "out",
        "--model",
        str(broken),
        "--steps",
        "judge",
        "faiss",
        hidden=("vllm", "faiss"),
    )
    assert status == 1
    assert states(outcomes) == {
        "models/judge": "skipped", "judge/product": "ok", "judge/transformers": "failed", "judge/vllm": "skipped",
        "judge/vllm-graphs": "skipped", "faiss/knn": "skipped",
    }  # fmt: skip
    assert re.search(
        r"\| Judge \| transformers backend \| [\d.]+ \| failed: …/broken: cannot be loaded as a judge",
        text,
    )
    assert "| image → text, 50 candidates | transformers backend | not measured |" in text
    assert not OWN_PATH.search(text)


def test_a_missing_gpu_is_reported(tmp_path):
    """The CPU build of torch sees no GPU."""
    command = [sys.executable, "-m", "bench.gpu", "--out", str(tmp_path)]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: no GPU to measure: ")
    assert not list(tmp_path.iterdir())


def ended(tmp_path, script, limit_s):
    """Returns what the page says about a process that runs this shell script."""
    log = tmp_path / "log"
    seconds, status = _watched(["sh", "-c", script], log, limit_s)
    return _outcome(tmp_path / "result.json", log, seconds, status)


def test_an_aborted_process_ends_only_its_own_case(tmp_path):
    """FAISS aborts its process like this if CUDA is broken."""
    outcome = ended(tmp_path, "echo CUDA error 35; kill -ABRT $$", 60)
    assert (outcome.state, outcome.cause) == (
        "failed",
        "the process was killed by SIGABRT. Its last line: CUDA error 35",
    )


def runs(pid):
    """Whether a process exists and still runs.

    A process that has ended, but that nobody has waited for, does not run.
    """
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_for(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_process_that_hangs_is_ended_with_its_children(tmp_path):
    """The child process ignores SIGTERM, as an engine may do."""
    outcome = ended(tmp_path, "(trap '' TERM; exec sleep 600) & echo $!; sleep 600", 3)
    pid = int((tmp_path / "log").read_text())
    assert outcome.state == "failed"
    assert outcome.cause == f"not done in time. Increase --limit-s. Its last line: {pid}"
    wait_for(lambda: not runs(pid))


def test_a_written_result_counts_even_if_the_process_hangs(tmp_path):
    written = {"state": "ok", "seconds": None, "cause": "", "figures": {"rows": 2}}
    (tmp_path / "result.json").write_text(json.dumps(written))
    outcome = ended(tmp_path, "sleep 600", 1)
    assert (outcome.state, outcome.figures) == ("ok", {"rows": 2})


def test_parity_by_hand():
    exact = Outcome("ok", figures={"log_odds": [[1.0, 2.0, 3.0], [4.0]], "errors": []})
    found = Outcome("ok", figures={"log_odds": [[1.5, 1.5, None], [4.25]], "errors": ["too long"]})
    lost = Outcome("failed", cause="why")
    names = list(parity.STEP.cases)
    (table,) = parity.tables(dict(zip(names, [exact, found, lost, lost, lost], strict=True)))
    assert table.rows[0][1:] == ["4", "0", "0.0e+00", "0.0e+00", "0", "4"]
    assert table.rows[1][1:] == ["4", "1", "5.0e-01", "4.2e-01", "1", "2"]
    assert table.rows[2][1:] == ["not measured"] * 6
    assert table.note.endswith("the error of the first pair without a verdict is: too long.")


def test_parity_without_its_reference():
    found = Outcome("ok", figures={"log_odds": [[1.0]], "errors": []})
    lost = Outcome("failed", cause="why")
    (table,) = parity.tables(
        dict(zip(parity.STEP.cases, [lost, found, lost, lost, lost], strict=True))
    )
    assert table.rows[1][1:] == ["1", "0", "not measured", "not measured", "0", "1"]


@pytest.mark.parametrize(("maker", "peak"), [(None, 1e12), (4e12, 4e12)])
def test_the_judges_utilisation_by_hand(maker, peak):
    """100 pairs of 20 GFLOP in 5 s are 0.4 TFLOP/s."""
    product = Outcome("ok", figures={"device": "GPU", "maker_peak": maker, "product_rate": 1e12})
    scenario = {
        "pairs": 100,
        "seconds": 5.0,
        "flops_per_pair": 20e9,
        "least_tokens": 30.0,
        "tokens": None,
    }
    one = Outcome(
        "ok", figures={"start_s": 7.0, "scenarios": dict.fromkeys(judging.SCENARIOS, scenario)}
    )
    lost = Outcome("failed", cause="why")
    outcomes = dict(zip(judging.STEP.cases, [product, one, lost, lost], strict=True))
    (table,) = judging.tables(outcomes)
    assert len(table.rows) == 6
    share = f"{0.4e12 / peak:.1%}"
    assert table.rows[0][2:] == [
        "20.0",
        f"{peak / 20e9:.1f}",
        share,
        "0.4",
        "not measured",
        "30",
        "7",
    ]

    # Without a peak there is no limit, but the page still has the pairs/s.
    (table,) = judging.tables(outcomes | {"product": lost})
    assert table.rows[0][2:5] == ["20.0", "not measured", "not measured"]


def test_the_trainers_row_by_hand():
    figures = {
        "device": "GPU", "maker_peak": None, "product_rate": 1e12, "rows": 8, "seconds": 4.0, "flops": 2e12,
        "weights_bytes": 2**30, "peak_bytes": 3 * 2**30, "estimate_bytes": None,
    }  # fmt: skip
    outcomes = {
        "kept": Outcome("ok", figures=figures),
        "checkpointing": Outcome("failed", cause="out of memory"),
    }
    (table,) = training.TRAINER.tables(outcomes)
    assert table.rows[0][1:] == ["2.00", "0.5", "50.0%", "1", "3", "not measured"]
    assert table.rows[1][1:] == ["not measured"] * 6


def test_two_searches_are_compared_rank_by_rank():
    first = np.array([[0.9, 0.5]], np.float32), np.array([[3, 1]])
    second = np.array([[0.9, 0.25]], np.float32), np.array([[3, 2]])
    found = search.compared(lambda: first, lambda: second)
    assert (found["equal_places"], found["largest_difference"]) == (0.5, 0.25)


def test_a_page_escapes_characters_that_would_break_its_tables():
    one = Case("a | b", lambda options: {})
    made = Step(
        "one", "One", "About.", {"x": one}, lambda outcomes: [Table(["h"], [["v|w"]], "A note.")]
    )
    outcomes = {"one": {"x": Outcome("ok", 1.25, figures={"v": 1})}}
    text = page("Title", "Made /here/now.", {"GPU": "none"}, [made], outcomes)
    assert r"| One | a \| b | 1.2 | ok |" in text
    assert r"| v\|w |" in text
    assert "Made …/now." in text


def test_a_cause_is_one_line():
    assert one_line("\x1b[31mRuntimeError\x1b[0m: a\n  b") == "RuntimeError: a b"
    assert len(one_line("x" * 1000)) == 400


def test_the_models_have_shapes_that_can_be_split():
    """The heads share keys and values evenly, and the positions fill half of each head."""
    for text, _ in (*JUDGES.values(), *STUDENTS.values()):
        heads, width = text["num_attention_heads"], text["hidden_size"]
        assert width % heads == 0
        assert heads % text.get("num_key_value_heads", 2) == 0
        sections = text.get("rope_parameters", {"mrope_section": [4, 6, 6]})["mrope_section"]
        assert 2 * sum(sections) == width // heads


def test_names_of_steps_are_those_that_docs_list():
    listed = re.findall(
        r"^\| `(\w+)` \|",
        (ROOT / "docs/gpu.md").read_text().split("# Measuring a GPU")[1],
        re.MULTILINE,
    )
    assert tuple(listed[-len(NAMES) :]) == NAMES


@pytest.mark.parametrize("module", [lines, parity, peaks, serving, step])
def test_examples_are_right(module):
    found = doctest.testmod(module)
    assert found.attempted > 0
    assert found.failed == 0


def test_a_service_with_other_scores_has_failed_and_keeps_its_figures():
    found = Outcome(
        "failed", cause="judge verify: NOT the model's own scores", figures={"ready_s": 3.0}
    )
    (table,) = serving.tables({"serve": found})
    assert table.rows == [
        ["from start to ready, s", "3.0"], ["dtype of the reference", "not measured"], ["judge verify", "not measured"],
    ]  # fmt: skip


DRY = Options(dry_run=True, model="", size="3b", scratch="scratch", logs="logs", limit_s=60)


def test_a_dry_run_leaves_a_cuda_build_of_vllm_alone(monkeypatch):
    monkeypatch.setattr(step, "has_cuda_vllm", lambda: False)
    step.check_engine(DRY, "vllm")
    monkeypatch.setattr(step, "has_cuda_vllm", lambda: True)
    step.check_engine(DRY, "transformers")
    with pytest.raises(Skipped, match="the installed vLLM is a CUDA build"):
        step.check_engine(DRY, "vllm")


def test_an_error_of_a_case_becomes_its_outcome(monkeypatch):
    def outcome(error):
        def measure(_):
            raise error

        failing = Step("one", "One", "", {"x": Case("x", measure)}, lambda outcomes: [])
        monkeypatch.setattr(case, "STEPS", (failing,))
        return case.outcome_of("one", "x", DRY)

    assert outcome(Skipped("no GPU")) == Outcome("skipped", cause="no GPU")
    assert outcome(Wrong("not equal", {"rows": 1})) == Outcome(
        "failed", cause="not equal", figures={"rows": 1}
    )
    assert outcome(ModelError("a: why. Do b")) == Outcome("failed", cause="a: why. Do b")
    assert outcome(SystemExit("no")) == Outcome("failed", cause="SystemExit: no")
    assert outcome(KeyError("x")) == Outcome("failed", cause="KeyError: 'x'")
