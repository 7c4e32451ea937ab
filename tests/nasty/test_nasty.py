"""The table of faults, for all importers."""

import json
import re

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from miner.importers.cli import imports
from tests.nasty.kinds import KINDS
from tests.nasty.layouts import LAYOUTS
from tests.nasty.made import ROWS, Made
from tests.nasty.pictures import jpeg
from unijudge.cli import run
from unijudge.errors import DataError

LONGEST_MESSAGE = 600
CASES = [(kind, layout) for kind in KINDS for layout in LAYOUTS if kind.fits(layout)]


def make(layout, folder, captioned=ROWS):
    """Makes a source with captioned pictures. Each picture has its own colour."""
    images = folder / "data" / "image"
    images.mkdir(parents=True)
    for (name, _), color in zip(ROWS, ("red", "blue"), strict=True):
        (images / name).write_bytes(jpeg(color))
    source = layout.write(folder / "data", captioned)
    return Made(
        layout, source, images, list(folder.glob(f"data/{layout.text}")) if layout.text else []
    )


def imported(made, out, *more):
    """Runs the import command, with any share of rejected rows. Returns the output and the error."""
    words, more = (
        [str(out.with_name("scores")) if word == "SCORES" else word for word in given]
        for given in (made.layout.more, more)
    )
    command = [
        made.layout.name,
        str(made.source),
        *map(str, made.more),
        str(out),
        *words,
        "--images",
        str(made.images),
        *more,
    ]
    result = CliRunner().invoke(imports, [*command, "--max-rejects", "1"])
    assert result.exit_code != 2, result.output
    return result.stdout, result.exception


@pytest.mark.parametrize(
    ("kind", "layout"), CASES, ids=[f"{kind.name}, {layout.name}" for kind, layout in CASES]
)
def test_the_result_of_importing_a_nasty_file(kind, layout, tmp_path):
    made, out = make(layout, tmp_path, kind.captioned), tmp_path / "corpus"
    kind.spoil(made)
    _, raised = imported(made, out, *kind.options)
    if kind.is_refused:
        assert isinstance(raised, DataError), raised
        assert kind.reason in str(raised)
        assert len(str(raised)) - len(str(tmp_path)) < LONGEST_MESSAGE
        assert not (out / "corpus.json").exists()
        return
    assert raised is None, raised
    queries = pq.read_table(out / "queries.parquet").to_pylist()
    items = pq.read_table(out / "items.parquet").to_pylist()
    assert len(queries) == kind.rows * layout.rows_for_one
    told = {row["text"] for row in (*queries, *items)} - {None, "", "other"}
    assert {text for text in told if "street" in text} == {
        caption for _, caption in ROWS[: kind.rows]
    }
    assert (
        len({row["image_sha256"] for row in (*queries, *items)} - {None})
        == kind.rows * kind.has_pictures
    )
    rejects = [
        json.loads(line)
        for line in (out / "rejects.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert len(rejects) == (2 - kind.rows) * layout.rows_for_one
    for reject in rejects:
        assert kind.reason in reject["reason"]
        assert len(json.dumps(reject)) < LONGEST_MESSAGE


@pytest.mark.parametrize(
    ("kind", "layout"), CASES, ids=[f"{kind.name}, {layout.name}" for kind, layout in CASES]
)
def test_a_dry_run_says_what_an_import_does_and_writes_nothing(kind, layout, tmp_path):
    made = make(layout, tmp_path, kind.captioned)
    kind.spoil(made)
    before = sorted(tmp_path.rglob("*"))
    printed, raised = imported(made, tmp_path / "corpus", *kind.options, "--dry-run")
    assert sorted(tmp_path.rglob("*")) == before
    if kind.is_refused:
        assert isinstance(raised, DataError), raised
        assert kind.reason in printed + str(raised)
        return
    assert raised is None, raised
    rows, rejects = kind.rows * layout.rows_for_one, (2 - kind.rows) * layout.rows_for_one
    assert re.search(
        rf"read +{rows} rows?: queries {rows}, .*, pictures {kind.rows * kind.has_pictures}\n",
        printed,
    )
    assert re.search(rf"rejected +{rejects} rows?\n", printed)
    assert kind.reason in printed


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_the_layout_of_files_is_guessed(layout, tmp_path, capsys):
    made = make(layout, tmp_path)
    run(["check", str(made.source), "--images", str(made.images)])
    printed = capsys.readouterr().out
    assert f"the layout of `unijudge mine import {layout.name}`;" in printed
    assert re.search(rf"read +{2 * layout.rows_for_one} rows: ", printed)
    assert "rejected  0 rows" in printed
    assert not list(tmp_path.rglob("corpus.json"))
