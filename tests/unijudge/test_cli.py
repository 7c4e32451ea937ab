"""The command line: help loads no engine, and an error is one line and exit status 1."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

UNIJUDGE = Path(sys.executable).parent / "unijudge"
ENGINES = {"torch", "transformers", "vllm", "ray", "faiss"}
HELP = """
import sys
import typer
from unijudge import cli

def commands(group, prefix=()):
    yield prefix
    for name, command in getattr(group, "commands", {}).items():
        yield from commands(command, (*prefix, name))

groups = [(entry.name, typer.main.get_command(entry.load())) for entry in cli.entry_points(group="unijudge.commands")]
paths = [(), ("describe",), ("check",), *(path for name, group in groups for path in commands(group, (name,)))]
for path in paths:
    sys.argv = ["unijudge", *path, "--help"]
    try:
        cli.main()
    except SystemExit as stop:
        assert stop.code == 0, path
    found = sorted(ENGINES & set(sys.modules))
    assert not found, f"{path} --help loads {found}"
print(f"no engine was loaded by {len(paths)} commands")
"""


def unijudge(*arguments, cwd=None):
    return subprocess.run(
        [UNIJUDGE, *map(str, arguments)], capture_output=True, text=True, check=False, cwd=cwd
    )


def test_no_help_loads_an_engine():
    """This holds for every command."""
    program = HELP.replace("ENGINES", repr(ENGINES))
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert re.search(r"no engine was loaded by [3-9]\d commands", done.stdout), done.stderr


JOBS = (
    "judge serve, mine score, mine estimate, mine submit, mine select, mine inspect, train embed, train embedder, "
    "train evaluate, train reranker, train benchmark"
)


@pytest.mark.parametrize("command", JOBS.split(", "))
def test_every_job_prints_an_example_of_its_settings(command):
    done = unijudge(*command.split(), "--example")
    assert done.returncode == 0
    assert done.stdout.startswith("# ")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (
            ["judge", "serve", "nowhere.toml"],
            "nowhere.toml: cannot be read (No such file or directory)",
        ),
        (["judge", "serve", "modl.name=x"], "modl: unknown setting. Did you mean model?"),
        (["mine", "score", "corpus=nowhere"], "settings: out: required, and not set"),
        (
            ["mine", "score", "corpus=nowhere", "vectors=v", "out=o"],
            "nowhere/corpus.json: no such file",
        ),
        (["mine", "import", "pairs", "nowhere.csv", "out"], "nowhere.csv: no such file"),
        (
            ["mine", "import", "mmeb", "nowhere", "out"],
            "nowhere: no such folder. Give the root of MMEB-train",
        ),
        (["train", "evaluate", "corpus=c", "vectors=v", "out=o"], "c/corpus.json: no such"),
        (["describe", "nowhere"], "nowhere: not a folder of unijudge"),
    ],
)
def test_a_mistake_is_one_line_and_status_1(tmp_path, arguments, reason):
    done = unijudge(*arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert reason in done.stderr
    assert "Traceback" not in done.stderr
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_describe_and_check_know_a_corpus(tmp_path):
    (tmp_path / "pairs.csv").write_text("query_text,positive_text\na,b\n")
    made = unijudge("mine", "import", "pairs", "pairs.csv", "corpus", cwd=tmp_path)
    assert made.stdout == "corpus: 1 queries, 1 items, 0 rows rejected (rejects.jsonl)\n"
    described = unijudge("describe", "corpus", cwd=tmp_path).stdout.splitlines()
    assert described[0] == "corpus: corpus; every file is there"
    told = dict(line.split(maxsplit=1) for line in described[1:])
    assert told["items"] == "1"
    assert told["made.command"] == "unijudge mine import pairs pairs.csv corpus"
    assert told["made.created"].endswith("+00:00")
    assert "corpus, whole: 2 rows read" in unijudge("check", "corpus", cwd=tmp_path).stdout
    (tmp_path / "corpus" / "items.parquet").write_bytes(b"other")
    broken = unijudge("check", "corpus", cwd=tmp_path)
    assert broken.returncode == 1
    assert "items.parquet: changed since it was written" in broken.stderr
