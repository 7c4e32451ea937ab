"""First words, unexpected errors and hostile words on the command line: short output, no traceback, right status."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from unijudge import cli
from unijudge.shown import LONGEST_MESSAGE

COMMANDS = [
    ["describe", "VALUE"], ["check", "VALUE"], ["VALUE"], ["mine", "VALUE"], ["--VALUE"], ["describe", "a", "VALUE"],
    ["mine", "score", "VALUE"], ["mine", "score", "VALUE"], ["mine", "score", "VALUE=1"],
    ["mine", "score", "VALUE.k=1"], ["mine", "score", "retrieval.VALUE=1"],
    ["mine", "score", "corpus=VALUE", "vectors=v", "out=o"],
    ["mine", "score", "corpus=c", "vectors=v", "out=o", "retrieval.index=VALUE"],
    ["mine", "score", "corpus=c", "vectors=v", "out=o", "retrieval.k=VALUE"],
    ["mine", "select", "scores=VALUE", "corpus=VALUE", "out=VALUE"],
    ["mine", "inspect", "scores=VALUE", "corpus=c", "out=VALUE"],
    ["mine", "export", "swift", "VALUE", "VALUE.jsonl", "--corpus", "VALUE"],
    ["mine", "export", "unime", "t", "o", "--corpus", "c", "--negatives", "VALUE"],
    ["mine", "publish", "VALUE", "--corpus", "VALUE"], ["mine", "status", "VALUE", "--address", "VALUE"],
    ["mine", "sweep", "scores=VALUE"], ["mine", "calibrate", "VALUE", "VALUE"],
    ["mine", "import", "pairs", "VALUE", "out"], ["mine", "import", "mmeb", "VALUE", "out"],
    ["mine", "import", "pairs", "VALUE", "VALUE", "--dry-run"], ["check", "VALUE", "VALUE", "--images", "VALUE"],
    ["train", "pull", "VALUE", "out"], ["train", "report", "VALUE"], ["train", "report", "VALUE", "--out", "VALUE"],
    ["train", "export", "VALUE", "VALUE"], ["train", "export", "run", "out", "--form", "VALUE"],
    ["train", "evaluate", "corpus=VALUE", "vectors=VALUE", "out=VALUE"],
    ["judge", "serve", "VALUE"], ["judge", "serve", "model.backend=VALUE"],
    ["judge", "serve", "address=VALUE", "model.backend=scripted"],
    ["judge", "serve", "host=VALUE", "model.backend=scripted", "address=none:1"],
]  # fmt: skip
LONG = [
    "x" * 1_000_000, "x/" * 2000, "x y " * 25_000, "é" * 5000, "[" * 3000, "x" * 300, "x\ny", "s3://" + "x" * 3000,
    "http://me:secret@" + "x" * 1000, "\udcff", "a\0b", '"a\\u0000b"', "9" * 5000, "x." * 3000, "{x=" * 400, "",
    "file://", "://", "memory://x?y", "x::y://z", "..", "~", "*",
]  # fmt: skip


def run(words, capsys):
    """Returns the status and the output on stdout and stderr, of a run in this process."""
    status = cli._status(list(words))
    out, err = capsys.readouterr()
    return status, out, err


@pytest.mark.parametrize(
    "words", ["--version", "mine --version", "train --version", "mine score --version"]
)
def test_the_version_is_printed_for_every_command(words, capsys):
    status, out, err = run(words.split(), capsys)
    lines = dict(line.split(" ", 1) for line in out.splitlines())
    assert (status, err) == (0, "")
    assert {"unijudge", "python", "torch", "transformers", "ray"} <= set(lines)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("help", "judge"),
        ("mine help", "score"),
        ("help mine", "score"),
        ("help mine score", "to resume"),
    ],
)
def test_the_word_help_prints_the_help(words, said, capsys):
    status, out, _ = run(words.split(), capsys)
    assert status == 0
    assert said in out


@pytest.mark.parametrize(
    ("words", "nearest"),
    [
        ("mien", "mine"),
        ("mine scoer", "score"),
        ("train embeder", "embedder"),
        ("mine score --exmple", "--example"),
    ],
)
def test_a_misspelt_command_names_the_nearest(words, nearest, capsys):
    status, _, err = run(words.split(), capsys)
    assert status == 2
    assert nearest in err.splitlines()[-1]
    assert len(err.splitlines()) == 2


@pytest.mark.parametrize(
    ("module", "words", "extra"),
    [
        (
            "ray",
            "judge serve model.backend=scripted port=0",
            "'unijudge[judge]' ([judge-cpu] on a machine without a GPU)",
        ),
        ("ray", "mine jobs", "'unijudge[mine-ray]'"),
        ("torch", "train embed corpus=c out=o model.name=m", "'unijudge[train]'"),
        ("transformers", "train benchmark root=r out=o model.name=m", "'unijudge[train]'"),
        ("torch", "train export run out", "'unijudge[train]'"),
        ("faiss", "mine score corpus=c vectors=v out=o", "'unijudge[mine]'"),
        ("faiss", "mine estimate corpus=c vectors=v out=o", "'unijudge[mine]'"),
        ("s3fs", "describe s3://bucket/x", "unijudge[s3]"),
    ],
)
def test_a_command_that_lacks_a_package_names_the_extra(module, words, extra, tmp_path):
    """The message has one line, and nothing is written before."""
    program = (
        f"import sys; sys.modules[{module!r}] = None; from unijudge.__main__ import main; main()"
    )
    here = {"cwd": tmp_path, "env": os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}}
    done = subprocess.run(
        [sys.executable, "-c", program, *words.split()],
        capture_output=True,
        text=True,
        check=False,
        **here,
    )
    assert done.returncode == 1
    assert extra in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_an_unexpected_error_is_three_lines_and_a_report_without_secrets(
    monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def broken(folder):
        raise KeyError(f"Bearer abc at https://me:hidden@host/{folder}")

    monkeypatch.setattr(cli.inventory, "describe", broken)
    status, _, err = run(["describe", "http://me:hidden@host/x"], capsys)
    lines = err.splitlines()
    assert status == 1
    assert lines[0] == "error: unijudge describe: ended by an unexpected error"
    assert lines[1].startswith("KeyError: 'Bearer … at https://host/")
    path = Path(
        re.fullmatch(
            r"the full report: (.*)\. Please send it to the maintainers, with what you did",
            lines[2],
        )[1]
    )
    report = path.read_text()
    assert len(lines) == 3
    assert (path.stat().st_mode & 0o777, path.parent.name) == (
        0o600,
        f"unijudge-logs-{os.getuid()}",
    )
    assert "Traceback (most recent call last)" in report
    assert "unijudge 0" in report
    assert "in broken" in report
    assert not re.search("hidden|abc", report + err)


def test_an_error_in_a_group_is_printed_like_a_single_error(monkeypatch, capsys):
    from unijudge.errors import DataError

    def broken(folder):
        raise ExceptionGroup(
            "tasks", [ExceptionGroup("more", [DataError("x: torn")]), ValueError()]
        )

    monkeypatch.setattr(cli.inventory, "describe", broken)
    assert run(["describe", "x"], capsys)[2] == "error: x: torn\n"


@pytest.mark.parametrize("number", [signal.SIGINT])
def test_ctrl_c_ends_without_a_traceback(number):
    program = (
        "import os, signal\nfrom unijudge import cli\n"
        "cli.inventory.describe = lambda folder: os.kill(os.getpid(), signal.SIGINT)\n"
        "import sys\nsys.argv = ['unijudge', 'describe', 'x']\ncli.main()\n"
    )
    here = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, env=here
    )
    assert (done.returncode, done.stdout, done.stderr) == (cli.INTERRUPTED, "", f"{cli.STOPPED}\n")


def check_brief(status, err, value):
    """One message of at most 600 characters, with at most 60 characters of a value, and without a traceback."""
    assert "Traceback" not in err
    assert "unexpected error" not in err, err
    messages = err.split("error: ")
    assert all(
        len(message) <= LONGEST_MESSAGE + 300 * (number == 0)
        for number, message in enumerate(messages)
    )
    if len(value) > 200 and "://" not in value:
        assert value[:61] not in err
        assert value[-61:] not in err


@pytest.mark.parametrize("value", LONG, ids=lambda value: repr(value[:8]))
def test_hostile_values_are_refused_in_brief(value, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))  # the folder of ~
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    # The handler of a library still writes to the stderr of another test.
    monkeypatch.setattr("logging.raiseExceptions", False)
    faults = []
    for command in COMMANDS:
        words = [word.replace("VALUE", value) for word in command]
        try:
            status, _, err = run(words, capsys)
            check_brief(status, err, value)
            assert status in (1, 2)
        except Exception as error:  # noqa: BLE001  all faults are told together
            faults.append(f"{' '.join(command)}: {type(error).__name__} {str(error)[:300]}")
    assert not faults, "\n".join(faults)
