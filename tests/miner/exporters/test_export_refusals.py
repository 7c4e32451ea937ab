"""Rows that an export leaves out, and refused exports: they leave no partial file, and their memory is bounded."""

import itertools
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from functools import partial

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from miner.cli import app
from miner.exporters.flagembedding import export_flagembedding
from miner.exporters.sentence_transformers import export_sentence_transformers
from miner.exporters.swift import export_swift
from miner.exporters.tevatron import export_tevatron
from miner.exporters.training_rows import TrainingRows
from miner.exporters.unime import export_unime
from tests.miner.selections import (
    TEXT_ITEMS,
    TEXT_QUERIES,
    TRIPLES,
    left_out,
    lines,
    manifest,
    opened,
)
from unijudge.errors import DataError, SettingsError
from unijudge.formats.triples import TRIPLES as TABLE
from unijudge.formats.triples import Negative, finish_triples, write_triples


@pytest.fixture
def make(tmp_path):
    return partial(opened, tmp_path)


def test_suspects_and_rows_without_weight_are_counted(make, tmp_path):
    dead = replace(TRIPLES[0], weight=0.0)
    rows = make(triples=[*TRIPLES, dead], skip_suspects=True)
    export_swift(rows, tmp_path / "swift.jsonl")
    assert (rows.written, left_out(rows)) == (
        1,
        {"suspect positive": (1, "q1"), "weight 0": (1, "q0")},
    )


EXPORTS = {
    "sentence-transformers": (export_sentence_transformers, "out.parquet"),
    "flagembedding": (export_flagembedding, "out.jsonl"),
    "swift": (export_swift, "out.jsonl"),
    "tevatron": (export_tevatron, "out"),
    "unime": (lambda rows, out: export_unime(rows, out, negatives=3), "out.json"),
}


@pytest.mark.parametrize("layout", EXPORTS)
def test_failures_leave_nothing(make, tmp_path, layout):
    export, name = EXPORTS[layout]
    out = tmp_path / name
    rows = make(TEXT_ITEMS, TEXT_QUERIES, [TRIPLES[1], replace(TRIPLES[0], query_id="q9")])
    with pytest.raises(
        DataError,
        match=r"query 'q9': the query is not in .*corpus, so one of these folders is damaged",
    ):
        export(rows, out)
    write_triples(tmp_path / "triples", [TRIPLES[1]])
    finish_triples(tmp_path / "triples", manifest(rows.corpus.fingerprint, 1))
    with pytest.raises(DataError, match=r"no row can be exported .suspect positive: 1"):
        export(TrainingRows(tmp_path / "triples", tmp_path / "corpus", skip_suspects=True), out)
    write_triples(tmp_path / "triples", TRIPLES)
    finish_triples(tmp_path / "triples", manifest(rows.corpus.fingerprint, len(TRIPLES)))
    with pytest.raises(DataError, match=r"triples: only \d of --min-rows 9 can be exported"):
        export(TrainingRows(tmp_path / "triples", tmp_path / "corpus", min_rows=9), out)
    assert not list(tmp_path.glob("out*"))
    out.write_text("mine")
    with pytest.raises(DataError, match="exists already"):
        export(rows, out)
    assert out.read_text() == "mine"


@pytest.mark.parametrize("layout", ["sentence-transformers", "flagembedding", "unime"])
def test_a_pair_without_verdict_has_no_score(make, tmp_path, layout):
    export, name = EXPORTS[layout]
    lost = Negative("i3", bytes(16), None, 0.5, error="bad_image: torn")
    row = replace(TRIPLES[1], negatives=[*TRIPLES[1].negatives[:2], lost])
    with pytest.raises(
        DataError, match=r"query 'q1': item 'i3' has no verdict .bad_image: torn.*--no-scores"
    ):
        export(make(TEXT_ITEMS, TEXT_QUERIES, [TRIPLES[1], row]), tmp_path / name)
    assert not list(tmp_path.glob("out*"))


def test_exports_that_the_layout_cannot_hold_are_refused(make, tmp_path):
    rows = make()
    with pytest.raises(SettingsError, match=r"--negatives 4: the rows of .* have only 3"):
        export_sentence_transformers(rows, tmp_path / "st.parquet", negatives=4)
    with pytest.raises(
        SettingsError, match=r"out\.json: the receiving library reads only \.jsonl files"
    ):
        export_swift(rows, tmp_path / "out.json")
    finish_triples(
        tmp_path / "triples", manifest("another", 2, selection={"corpus": "/data/corpus"})
    )
    with pytest.raises(
        DataError,
        match=r"another corpus: from /data/corpus with the fingerprint another, but the given",
    ):
        TrainingRows(tmp_path / "triples", tmp_path / "corpus")
    (tmp_path / "corpus" / "items.parquet").write_bytes(b"torn")
    with pytest.raises(
        DataError, match=r"items\.parquet: changed since it was written. Import again"
    ):
        TrainingRows(tmp_path / "triples", tmp_path / "corpus")


def test_the_commands_print_what_they_wrote(make, tmp_path):
    make(TEXT_ITEMS, TEXT_QUERIES)
    where = [str(tmp_path / "triples")], ["--corpus", str(tmp_path / "corpus")]
    commands = {
        "sentence-transformers": ["st.parquet", "--no-scores"],
        "flagembedding": ["f.jsonl", "--type", "normal", "--extra-positives"],
        "swift": ["swift.jsonl", "--image-root", "/data"],
        "tevatron": ["tevatron"],
        "unime": ["unime.json", "--negatives", "3"],
    }
    for layout, (name, *options) in commands.items():
        arguments = ["export", layout, *where[0], str(tmp_path / name), *where[1], *options]
        done = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        assert (tmp_path / name).exists()
        told = done.output.replace("\n", " ")
        if layout == "sentence-transformers":
            assert (
                "1 rows written left out, fewer than 3 distinct negatives: 1, the first is query 'q0'"
                in told
            )
        else:
            assert "2 rows written weight below 1: 1 rows, written without their weight" in told
    assert lines(tmp_path / "f.jsonl")[0]["type"] == "normal"


COMMANDS = {
    "sentence-transformers": ("out.parquet", ["--no-scores"]),
    "flagembedding": ("out.jsonl", []),
    "swift": ("out.jsonl", []),
    "tevatron": ("out", []),
    "unime": ("out.json", ["--negatives", "3"]),
}


@pytest.mark.parametrize("layout", COMMANDS)
def test_only_an_older_export_of_the_same_layout_is_replaced(make, tmp_path, layout):
    """An export of another layout, a foreign file, and a file of a folder of unijudge are not replaced."""
    make(TEXT_ITEMS, TEXT_QUERIES)
    name, options = COMMANDS[layout]
    out = tmp_path / name

    def export(place, *more):
        words = [
            "export",
            layout,
            str(tmp_path / "triples"),
            str(place),
            "--corpus",
            str(tmp_path / "corpus"),
        ]
        return CliRunner().invoke(app, [*words, *options, *more])

    assert export(out).exit_code == 0
    assert "exists already" in str(export(out).exception)
    assert export(out, "--overwrite").exit_code == 0
    if layout == "tevatron":
        (out / "queries" / "mine.txt").write_text("mine")
        assert "holds queries/mine.txt, which --overwrite would delete" in str(
            export(out, "--overwrite").exception
        )
        foreign = tmp_path / "other"
        (foreign / "queries").mkdir(parents=True)
    else:
        foreign = tmp_path / f"other{out.suffix}"
        foreign.write_text('{"name": "a stranger"}\n')
    assert f"{foreign.name}: exists already, but is not this command's output" in str(
        export(foreign, "--overwrite").exception
    )
    assert foreign.exists()
    ours = (
        tmp_path
        / "corpus"
        / {".parquet": "items.parquet", ".json": "corpus.json"}.get(out.suffix, "rejects.jsonl")
    )
    ours.touch()
    before = ours.read_bytes()
    assert ours.name + ": exists already" in str(export(ours, "--overwrite").exception)
    assert ours.read_bytes() == before


def test_rows_with_too_few_distinct_negatives_are_reported_with_the_cure(make, tmp_path):
    """Ten rows have three negatives each. In nine rows only two negatives are distinct, in the tenth row all three."""
    short = replace(TRIPLES[0], query_id="q0")
    make(TEXT_ITEMS, TEXT_QUERIES, [short] * 9 + [TRIPLES[1]])
    told = {}
    for layout, name, *options in [
        ("sentence-transformers", "st.parquet"), ("swift", "swift.jsonl"), ("swift", "two.jsonl", "--negatives", "2"),
        ("swift", "three.jsonl", "--negatives", "3"), ("unime", "unime.json", "--negatives", "3"),
        ("flagembedding", "f.jsonl"), ("tevatron", "tevatron"),
    ]:  # fmt: skip
        corpus = ["--corpus", str(tmp_path / "corpus")]
        command = [
            "export",
            layout,
            str(tmp_path / "triples"),
            str(tmp_path / name),
            *corpus,
            *options,
        ]
        done = CliRunner().invoke(app, command, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        told[name] = done.output
    advice = "--negatives 2 would export 10 of 10 rows without duplicates"
    few = "fewer than 3 distinct negatives: 9 of 10 rows, "
    assert (
        "left out, fewer than 3 distinct negatives: 9, the first is query 'q0'"
        in told["st.parquet"]
    )
    assert few + "filled up with duplicates, as in the released file" in told["unime.json"]
    for name in ("swift.jsonl", "f.jsonl", "tevatron"):
        assert few + "written with fewer negatives" in told[name]
    assert (
        "left out, fewer than 3 distinct negatives: 9, the first is query 'q0'"
        in told["three.jsonl"]
    )
    assert "written with fewer" not in told["three.jsonl"]
    assert "distinct" not in told["two.jsonl"]
    assert {len(line["negative_messages"]) for line in lines(tmp_path / "two.jsonl")} == {2}
    assert len(lines(tmp_path / "three.jsonl")) == 1
    assert [name for name, text in told.items() if advice in text] == [
        "st.parquet", "swift.jsonl", "three.jsonl", "unime.json",
    ]  # fmt: skip


MEASURE = """
import sys
from pathlib import Path
from miner.exporters.training_rows import TrainingRows
from tests.miner.exporters.test_export_refusals import EXPORTS
export, name = EXPORTS[sys.argv[1]]
def peak(triples):
    rows = TrainingRows(triples, corpus)
    (out / triples.name).mkdir()
    export(rows, out / triples.name / name)
    status = Path("/proc/self/status").read_text()  # ru_maxrss would begin with what the parent had
    return rows.written, int(status.split("VmHWM:")[1].split()[0]) // 1024
small, large, corpus, out = map(Path, sys.argv[2:])
_, before = peak(small)
written, after = peak(large)
print(written, after - before)
"""


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Selections of 8,192 rows and of five times as many rows, and their corpus."""
    folder = tmp_path_factory.mktemp("many")
    corpus = opened(folder, TEXT_ITEMS, TEXT_QUERIES).corpus
    small, large = folder / "small", folder / "large"
    TABLE.write(small / "part-00000.parquet", itertools.repeat(asdict(TRIPLES[1]), 8_192))
    finish_triples(small, manifest(corpus.fingerprint, 8_192))
    finish_triples(large, manifest(corpus.fingerprint, 40_960))
    for part in range(5):
        shutil.copy(small / "part-00000.parquet", large / f"part-{part:05d}.parquet")
    return small, large, corpus.folder


@pytest.mark.parametrize("layout", EXPORTS)
def test_memory_does_not_grow_with_the_rows(many, tmp_path, layout):
    """From 8,192 to 40,960 rows, memory grows by 5 MB at most. The rows themselves would need 25 MB or more."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, layout, *many, tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    written, grown = map(int, done.stdout.split())
    assert written == 40_960
    assert grown < 15


def test_parquet_is_written_in_groups(many, tmp_path):
    small, _, corpus = many
    export_sentence_transformers(TrainingRows(small, corpus), tmp_path / "st.parquet")
    groups = pq.ParquetFile(tmp_path / "st.parquet").metadata
    assert [groups.row_group(number).num_rows for number in range(groups.num_row_groups)] == [
        4096,
        4096,
    ]
