"""The released training data: the counts on rows that follow the rule, and on rows that do not follow it."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from judge_service.backends.scripted import ScriptedJudge
from tests.miner.conftest import serving
from tests.pictures import png
from unijudge.client.client import judge_now
from unijudge.content import Content
from unijudge.judging.prompt import Prompt

ROOT = Path(__file__).parents[3]


def on_grid(steps):
    """Returns the score of a whole number of steps of the grid."""
    return 1 / (1 + math.exp(-steps / 8.4))


def row(positive, negatives, name="a.png"):
    return {
        "query_text": "find", "query_image": f"images/CIRR/{name}", "pos_text": "right", "pos_image": "",
        "query_pos_scores": positive, "hard_negatives": [[f"wrong {index}", ""] for index, _ in enumerate(negatives)],
        "hard_negatives_scores": negatives,
    }  # fmt: skip


def counted(tmp_path, rows, *words):
    (tmp_path / "released.json").write_text(json.dumps(rows))
    command = [
        sys.executable,
        "-m",
        "studies.released",
        tmp_path / "released.json",
        tmp_path / "out",
        *words,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return json.loads((tmp_path / "out" / "released.json").read_text())


def test_rows_of_the_rule_are_found(tmp_path):
    fits = row(on_grid(20), [on_grid(2), on_grid(-8)])
    relaxed = row(0.05, [0.03, 0.02])
    breaks = row(0.9, [0.85, 0.1])
    twice = row(on_grid(20), [on_grid(2), on_grid(2)]) | {
        "hard_negatives": [["wrong", ""], ["wrong", ""]]
    }
    found = counted(tmp_path, [fits, relaxed, breaks, twice])
    assert found["rows"] == 4
    assert found["on_grid"] == pytest.approx(6 / 12)
    assert found["on_ladder"] == pytest.approx(3 / 4)
    assert found["margin_0_1"] == pytest.approx(2 / 4)
    assert found["margin_0_01"] == 1
    assert found["with_duplicates"] == pytest.approx(1 / 4)


def test_a_judges_scores_are_compared_with_the_released_scores(tmp_path):
    """First our scores equal the released scores, then our scores are the opposite."""
    picture = png()
    (tmp_path / "images" / "CIRR").mkdir(parents=True)
    (tmp_path / "images" / "CIRR" / "a.png").write_bytes(picture)
    texts = ["right", *(f"wrong {index}" for index in range(5))]
    with serving(ScriptedJudge(Prompt())) as url:
        verdicts = judge_now(url, Content("find", picture), [Content(text) for text in texts])
        scores = [verdict.score for verdict in verdicts]
        words = ["--images", tmp_path, "--service", url]
        same = counted(tmp_path, [row(scores[0], scores[1:])], *words)
        turned = counted(
            tmp_path / "images", [row(1 - scores[0], [1 - score for score in scores[1:]])], *words
        )
    assert same["log_odds_correlation"] == pytest.approx(1)
    assert same["same_order"] == 1
    assert turned["log_odds_correlation"] == pytest.approx(-1)
    assert turned["same_order"] == 0


def test_a_file_without_rows_is_refused(tmp_path):
    (tmp_path / "other.json").write_text('[{"a": 1}]')
    command = [sys.executable, "-m", "studies.released", tmp_path / "other.json", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 1
    assert "contains no row of UniME-V2. Give a released train_data_" in done.stderr
