"""The demo runs commands in parallel."""

import pytest

from demo import processes
from demo.processes import run_side_by_side


def test_a_command_that_fails_is_shown_with_its_reason_and_ends_the_demo(
    tmp_path, monkeypatch, capfd
):
    monkeypatch.setattr(processes, "LOADED_ONCE", [])  # no engine is needed here
    (tmp_path / "pairs.csv").write_text("query_text,positive_text\na,b\n")
    chains = [
        [
            f"unijudge mine import pairs {tmp_path}/pairs.csv {tmp_path}/corpus",
            f"unijudge check {tmp_path}/corpus",
        ],
        ["unijudge describe nowhere", "unijudge describe never"],
    ]
    with pytest.raises(
        SystemExit, match="the demo stops: `unijudge describe nowhere` ended with status 1"
    ):
        run_side_by_side(chains, at_once=1)
    shown = capfd.readouterr().out
    assert "corpus: 1 queries, 1 items" in shown
    assert "corpus, whole: 2 rows read" in shown
    assert "error: nowhere: not a folder of unijudge" in shown
    assert "describe never" not in shown
