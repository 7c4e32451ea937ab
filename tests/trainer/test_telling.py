"""The output of the commands."""

import subprocess
import sys
from pathlib import Path

from trainer.cli import _bar, _counter, _tell


def test_numbers_are_aligned_right_under_their_names(capsys):
    _tell(
        {
            "a": {"queries": 12, "precision@1": 0.1, "mrr": 0.0},
            "b": {"queries": 3, "precision@1": 1.0},
        }
    )
    head, *lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[:2]] == [["a", "12", "0.100", "0"], ["b", "3", "1", "–"]]
    mean = ["mean", "of", "the", "subsets", "15", "0.550", "–"]
    assert lines[2].split() == mean, "a measure of one subset has no mean"
    ends = [head.index(name) + len(name) for name in ("queries", "precision@1", "mrr")]
    for line in lines:
        assert all(line[end - 1] != " " and line[end : end + 1] in ("", " ") for end in ends)


def test_progress_without_a_terminal_is_at_most_ten_lines(caplog):
    caplog.set_level("INFO")
    with _bar() as bar:
        report = _counter(bar, "inputs embedded")
        for done in range(0, 105, 5):
            report(done, 100)
    assert caplog.messages[0] == "10 of 100 inputs embedded"
    assert caplog.messages[-1] == "100 of 100 inputs embedded"
    assert len(caplog.messages) == 10


def test_a_log_file_holds_no_progress_bars_of_the_libraries(folder, corpus, model, tmp_path):
    """The standard error is a pipe here. Loading a model would otherwise write a bar to it."""
    words = [f"model.name={model.name}", "model.device=cpu", f"corpus={folder / 'corpus'}"]
    program = Path(sys.executable).parent / "unijudge"
    command = [program, "train", "embed", *words, f"out={tmp_path / 'vectors'}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Loading weights" not in done.stderr
    assert f"{len(corpus.items) + len(corpus.queries)} inputs embedded" in done.stderr
