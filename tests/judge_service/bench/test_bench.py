"""`judge bench`: figures that were computed by hand, and the command with a scripted judge over real HTTP."""

import json
import math
import re
import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from judge_service.backends.scripted import ScriptedJudge
from judge_service.bench.compare import compare_judges, differences
from judge_service.bench.figures import ScoredPairs, all_figures, figures
from judge_service.bench.injection import CONTROL, TEXTS, drawn, injections, texts_for, with_a_no
from judge_service.bench.pairs import LabelledPair
from judge_service.bench.result import Bench
from judge_service.bench.run import BenchJob, bench
from judge_service.cli import app
from tests.miner.conftest import serving
from tests.pictures import png
from unijudge.errors import DataError, JudgeError
from unijudge.foreign.cells import Side
from unijudge.formats.labelled_scores import read_labelled
from unijudge.judging.prompt import Prompt
from unijudge.judging.verdicts import PairError, Verdict
from unijudge.storage.files import read_json


def verdict(score, mass=1.0):
    return Verdict(
        yes_logprob=math.log(score * mass),
        no_logprob=math.log((1 - score) * mass),
        argmax_is_label=True,
    )


class Reading(ScriptedJudge):
    """A judge that reads the score from the beginning of a candidate's text. The text `steers` changes the answer."""

    steers = ()

    def _answer(self, query, candidate):
        answer = super()._answer(query, candidate)
        # The text may also be of a known pair of the service.
        if isinstance(answer, PairError) or not (candidate.text or "").startswith("0."):
            return answer
        is_steered = any(text in candidate.text for text in self.steers)
        return verdict(0.97 if is_steered else float(candidate.text.split()[0]), mass=0.8)


def scored(*rows):
    """Scored pairs from (query, subset, kind, match, score or code of an error)."""
    found = []
    for number, (query, subset, kind, match, value) in enumerate(rows):
        pair = LabelledPair(
            f"a:{number}", subset, kind, Side(str(query), None), Side(str(number), None), match
        )
        answer = (
            PairError(code=value, message="")
            if isinstance(value, str)
            else verdict(value, mass=0.5)
        )
        found.append(ScoredPairs(pair, query, answer))
    return found


def test_figures_by_hand():
    """The matches score .9 and .4, the negatives .4, .1 and .2.

    Of six pairs of scores, five are in order and one is a tie.
    """
    rows = [(0, "s", None, True, 0.9), (0, "s", "a", False, 0.4), (1, "s", None, True, 0.4), (1, "s", "b", False, 0.1),
            (1, "s", "b", False, 0.2), (2, "s", "b", False, "too_long")]  # fmt: skip
    found = figures(None, None, scored(*rows), seed=0)
    assert (found.queries, found.matches, found.negatives) == (3, 2, 4)
    assert found.without_verdict == {"too_long": 1}
    assert found.roc_auc == pytest.approx(5.5 / 6)
    assert found.ties == pytest.approx(1 / 6)
    assert (found.yes, found.yes_of_matches, found.yes_of_negatives) == (0.2, 0.5, 0.0)
    assert [(one.pairs, one.matches) for one in found.calibration] == [
        (1, 0.0),
        (1, 0.0),
        (2, 0.5),
        (1, 1.0),
    ]
    assert found.calibration_error == pytest.approx((0.1 + 0.2 + 2 * 0.1 + 0.1) / 5)
    assert found.label_mass == pytest.approx(0.5)
    assert found.label_first == 1.0
    low, high = found.roc_auc_interval
    assert 0.5 < low <= found.roc_auc <= high == 1.0


def test_a_kind_is_compared_with_all_matches_of_its_subset():
    rows = [(0, "x", None, True, 0.6), (0, "x", "swap", False, 0.7), (1, "x", "own", True, 0.8),
            (1, "x", "add", False, 0.1), (2, "y", None, True, 0.5), (2, "y", "swap", False, 0.3)]  # fmt: skip
    found = {(one.subset, one.kind): one for one in all_figures(scored(*rows), seed=0)}
    assert list(found) == [
        (None, None), ("x", None), ("y", None), (None, "swap"), ("x", "swap"), ("y", "swap"), ("x", "add")
    ], "a kind of matches alone is no group"  # fmt: skip
    assert found["x", "swap"].roc_auc == 0.5
    assert found["y", "swap"].roc_auc == 1.0
    assert (found["x", "add"].matches, found["x", "add"].negatives, found["x", "add"].roc_auc) == (
        2,
        1,
        1.0,
    )
    assert found[None, "swap"].roc_auc == pytest.approx(4 / 6)
    assert found["y", None].roc_auc_interval is None, "a single query"


def test_scores_that_rounding_makes_equal_keep_their_order():
    pairs = [one.pair for one in scored((0, "s", None, True, 0.5), (1, "s", None, False, 0.5))]
    sure, surer = (
        Verdict(yes_logprob=-1e-9, no_logprob=no, argmax_is_label=True) for no in (-40.0, -50.0)
    )
    assert sure.score == surer.score == 1.0
    found = figures(
        None, None, [ScoredPairs(pairs[0], 0, surer), ScoredPairs(pairs[1], 1, sure)], seed=0
    )
    assert (found.roc_auc, found.ties) == (1.0, 0.0)


def test_a_group_without_verdicts_has_no_figures():
    found = figures(
        "s", None, scored((0, "s", None, True, "empty"), (0, "s", None, False, "empty")), seed=0
    )
    assert (found.roc_auc, found.yes, found.calibration_error, found.label_mass) == (
        None,
        None,
        None,
        None,
    )
    assert found.calibration == []
    assert found.without_verdict == {"empty": 2}


def test_flips_by_hand():
    """Two candidates score .2.

    The first text changes the answer of one candidate, and the control changes none. The second candidate once gets no
    verdict.
    """
    texts = {"plain": "p", "other": "o", CONTROL: "c"}
    before = [verdict(0.2), verdict(0.2)]
    rows = [
        [verdict(0.7), verdict(0.1), verdict(0.3)],
        [verdict(0.4), PairError(code="too_long", message=""), verdict(0.3)],
    ]
    found = injections(before, rows, texts, of=9, seed=3)
    assert (found.candidates, found.of, found.any_text) == (2, 9, 0.5)
    plain, other, control = found.texts
    assert (plain.pairs, plain.flipped, plain.share) == (2, 1, 0.5)
    assert plain.score_change == pytest.approx(0.35)
    assert (other.pairs, other.without_verdict, other.share) == (1, 1, 0.0)
    assert (control.name, control.flipped) == (CONTROL, 0)
    assert control.interval == pytest.approx((0.0, 0.6576), abs=1e-4)


def test_candidates_are_drawn_from_negatives_with_a_no():
    rows = [(n, "s", None, n % 2 == 0, 0.1 if n % 3 else 0.9) for n in range(60)]
    refused = with_a_no(scored(*rows))
    assert [int(pair.candidate.text) for pair, _ in refused] == [
        n for n in range(60) if n % 2 and n % 3
    ]
    assert drawn(refused, 5, seed=1) == drawn(refused, 5, seed=1) != drawn(refused, 5, seed=2)
    assert drawn(refused, 500, seed=1) == refused


def test_ten_texts_ask_for_a_yes_and_one_control_text_asks_for_nothing():
    texts = texts_for("Oui")
    assert len(texts) == 11
    assert [name for name, text in texts.items() if "Oui" not in text] == [CONTROL]
    assert len(set(TEXTS.values())) == 11


def pairs_file(folder, queries=12):
    """Each query has a picture, a match and two negatives. The text of each candidate begins with its score."""
    (folder / "q.png").write_bytes(png())
    (folder / "broken.png").write_bytes(b"no picture")
    rows = []
    for number in range(queries):
        query = {"query_text": f"query {number}", "query_image": "q.png"}
        rows += [
            {**query, "candidate_text": f"0.8{number:02} right", "label": 1},
            {**query, "candidate_text": f"0.1{number:02} wrong", "label": 0, "kind": "swap"},
            {**query, "candidate_text": f"0.9{number:02} wrong", "label": 0, "kind": "add"},
        ]
    rows.append(
        {
            **query,
            "candidate_text": "0.5",
            "candidate_image": "broken.png",
            "label": 0,
            "kind": "add",
        }
    )
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_command_measures_a_judge_over_http(tmp_path):
    judge = Reading(Prompt())
    judge.steers = (TEXTS["plain"].format(yes="Yes"), "<<SYS>>")
    path, out = pairs_file(tmp_path), tmp_path / "out"
    with serving(judge) as url:
        words = [
            "bench",
            str(path),
            "--service",
            url,
            "--out",
            str(out),
            "--injections",
            "5",
            "--seed",
            "4",
        ]
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, done.output
        again = CliRunner().invoke(app, words)
    assert isinstance(again.exception, DataError)
    assert "exists already" in str(again.exception)

    made = read_json(out / "bench.json", Bench)
    whole, swap, add = made.figures
    assert (whole.matches, whole.negatives, whole.without_verdict) == (12, 25, {"bad_image": 1})
    assert (whole.roc_auc, swap.roc_auc, add.roc_auc) == (0.5, 1.0, 0.0)
    assert whole.label_mass == pytest.approx(0.8)
    assert made.identity == judge.identity
    assert "bootstrap over queries, 1000 rounds, seed 4" in made.interval

    steered = {one.name: one for one in made.injections.texts}
    assert (made.injections.candidates, made.injections.of, made.injections.any_text) == (
        5,
        12,
        1.0,
    )
    assert {name for name, one in steered.items() if one.share == 1.0} == {"plain", "system block"}
    assert {
        one.share for name, one in steered.items() if name not in ("plain", "system block")
    } == {0.0}

    assert "| all | 12 | 25 | 0.500 |" in done.stdout
    assert "| swap | 12 | 12 | 1.000 | 1.000 … 1.000 |" in done.stdout
    assert "| plain | 5 | 5 | 1.000 | 0.566 … 1.000 |" in done.stdout
    assert "added to 5 of 12 candidates" in done.stdout

    rows = list(read_labelled(out / "scores.parquet"))
    assert [row.match for row in rows[:3]] == [True, False, False]
    assert rows[0].yes_logprob == pytest.approx(math.log(0.8 * 0.8))
    assert rows[-1].error == "bad_image: not a JPEG, PNG or WebP image"
    assert (rows[-1].candidate_image, rows[-1].yes_logprob) == ("broken.png", None)
    assert len({(row.query_key, row.candidate_key) for row in rows}) == 37

    page = (out / "bench.html").read_text()
    assert page.count("<svg") == 2
    assert "&lt;&lt;SYS&gt;&gt;" in page
    assert "<script" not in page
    assert "1 bad_image" in page


def test_injections_can_be_left_out_and_an_older_measurement_replaced(tmp_path):
    path, out = pairs_file(tmp_path), tmp_path / "out"
    with serving(Reading(Prompt())) as url:
        bench(BenchJob([path], url, out), lambda *_: None)
        made = bench(BenchJob([path], url, out, injections=0), lambda *_: None, overwrite=True)
    assert made.injections is None
    assert "Not measured" in (out / "bench.html").read_text()


def test_a_pair_of_two_kinds_is_judged_once(tmp_path):
    asked = []

    class Noting(Reading):
        def _answer(self, query, candidate):
            asked.append(candidate.text)
            return super()._answer(query, candidate)

    rows = [{"query_text": "a", "candidate_text": text, "label": label, "kind": kind}
            for text, label, kind in [("0.9", 1, None), ("0.2", 0, "swap"), ("0.2", 0, "add")]]  # fmt: skip
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with serving(Noting(Prompt())) as url:
        made = bench(
            BenchJob([tmp_path / "a.jsonl"], url, tmp_path / "out", injections=0), lambda *_: None
        )
    assert sorted(text for text in asked if text.startswith("0.")) == ["0.2", "0.9"]
    assert [(one.kind, one.negatives) for one in made.figures] == [
        (None, 2),
        ("swap", 1),
        ("add", 1),
    ]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "gone.png",
            r"pairs.jsonl:1: picture gone.png under .*: no such file. Add the file, or set --images",
        ),
        ("../q.png", r"pairs.jsonl:1: picture ../q.png under"),
        ("https://a/b.png", r"picture https://a/b.png under .*: a URL, not a path"),
    ],
)
def test_a_missing_picture_stops_the_command_before_any_request(tmp_path, name, message):
    path = pairs_file(tmp_path)
    path.write_text(path.read_text().replace("q.png", name))
    with pytest.raises(DataError, match=message):
        bench(BenchJob([path], "http://127.0.0.1:9", tmp_path / "out"), lambda *_: None)
    assert not (tmp_path / "out").exists()


def test_a_judge_without_a_verdict_is_named(tmp_path):
    class Silent(Reading):
        def _answer(self, query, candidate):
            answer = super()._answer(query, candidate)
            is_ours = candidate.text.startswith("0.")
            return PairError(code="too_long", message="5000 tokens") if is_ours else answer

    with (
        serving(Silent(Prompt())) as url,
        pytest.raises(
            JudgeError, match=r"none of 37 pairs got a verdict. The most common error is too_long"
        ),
    ):
        bench(BenchJob([pairs_file(tmp_path)], url, tmp_path / "out"), lambda *_: None)
    assert not (tmp_path / "out" / "bench.json").exists()


def test_a_missing_service_is_reported_in_one_line(tmp_path):
    words = [
        "judge",
        "bench",
        str(pairs_file(tmp_path)),
        "--service",
        "http://127.0.0.1:9",
        "--retry-for",
        "0",
    ]
    command = [sys.executable, "-m", "unijudge", *words, "--out", str(tmp_path / "out")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert re.fullmatch(r"error: http://127\.0\.0\.1:9: .+\n", done.stderr)
    assert not done.stdout


def test_a_small_measurement_can_be_repeated_exactly(tmp_path):
    path = pairs_file(tmp_path)
    with serving(ScriptedJudge(Prompt())) as url:
        made = [
            bench(BenchJob([path], url, tmp_path / out, injections=4), lambda *_: None)
            for out in ("a", "b")
        ]
    assert made[0].figures == made[1].figures
    assert made[0].injections == made[1].injections
    assert np.isfinite(made[0].figures[0].roc_auc_interval).all()


def test_two_judges_by_hand():
    """Judge A has one of two pairs in the wrong order, and judge B none.

    On the third query, judge B gives no verdict.
    """
    rows = [(0, "s", None, True, 0.9), (0, "s", "k", False, 0.4), (1, "s", None, True, 0.3), (1, "s", "k", False, 0.6),
            (2, "s", "k", False, 0.1)]  # fmt: skip
    better = [
        *rows[:2],
        (1, "s", None, True, 0.7),
        (1, "s", "k", False, 0.2),
        (2, "s", "k", False, "too_long"),
    ]
    whole, kind = differences(list(zip(scored(*rows), scored(*better), strict=True)), seed=0)
    assert (whole.name, whole.pairs, whole.areas) == ("all", 4, (0.5, 1.0))
    assert whole.same_answer == 0.5
    assert whole.interval == (0.0, 1.0)
    assert (kind.name, kind.areas) == ("k", (0.5, 1.0))


def test_a_judge_is_no_better_than_itself(tmp_path):
    path = pairs_file(tmp_path)
    a, b, c = (tmp_path / name for name in "abc")
    with serving(ScriptedJudge(Prompt())) as url:
        bench(BenchJob([path], url, a, injections=0), lambda *_: None)
    with serving(Reading(Prompt())) as url:
        bench(BenchJob([path], url, b, injections=0, queries=5), lambda *_: None)
    done = CliRunner().invoke(app, ["bench", "--compare", str(a), str(a)])
    assert done.exit_code == 0, done.output
    assert re.search(
        r"\| all \| 36 \| (0\.\d+) \| \1 \| \+0\.000 \| \+0\.000 … \+0\.000 \| 1\.000 \|",
        done.stdout,
    )
    assert "left out" not in done.stdout
    told = compare_judges(a, b)
    assert re.search(r"\| swap \| 10 \| 0\.\d+ \| 1\.000 \| \+", told)
    assert re.search(r"\n(21|22) pairs are in only one of the two folders", told)
    rows = [
        {"query_text": "a", "candidate_text": text, "label": int(text == "0.9")}
        for text in ("0.9", "0.2")
    ]
    (tmp_path / "other.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with serving(Reading(Prompt())) as url:
        bench(BenchJob([tmp_path / "other.jsonl"], url, c, injections=0), lambda *_: None)
    with pytest.raises(
        DataError, match=r"no pair is in both folders\. Give two measurements of the same files"
    ):
        compare_judges(a, c)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a.jsonl"], "Missing option '--service'"),
        (["a", "--compare"], "--compare needs two folders"),
    ],
)
def test_a_command_names_its_missing_arguments(words, message):
    done = CliRunner().invoke(app, ["bench", *words])
    assert done.exit_code == 2
    assert message in done.output


def test_a_picture_that_disappears_during_the_measurement_is_named(tmp_path):
    class Removing(Reading):
        def _answer(self, query, candidate):
            if candidate.text.startswith("0."):
                (tmp_path / "q.png").unlink(missing_ok=True)
            return super()._answer(query, candidate)

    path = pairs_file(tmp_path)
    with (
        serving(Removing(Prompt())) as url,
        pytest.raises(DataError, match=r"q\.png under .*was readable when the"),
    ):
        bench(BenchJob([path], url, tmp_path / "out", at_once=1), lambda *_: None)
