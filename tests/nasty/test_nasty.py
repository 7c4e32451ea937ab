"""The table of nasty files, over all importers."""

import json

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from miner.importers.cli import imports
from tests.nasty.kinds import KINDS, ROWS, Made, jpeg
from tests.nasty.layouts import LAYOUTS
from unijudge.errors import DataError

LONGEST_MESSAGE = 600
CASES = [(kind, layout) for kind in KINDS for layout in LAYOUTS if kind.fits(layout)]


def make(layout, folder, captioned=ROWS):
    """A source with captioned pictures, and the pictures, each of its own colour."""
    images = folder / "data" / "image"
    images.mkdir(parents=True)
    for (name, _), color in zip(ROWS, ("red", "blue"), strict=True):
        (images / name).write_bytes(jpeg(color))
    source = layout.write(folder / "data", captioned)
    return Made(layout, source, images, list(folder.glob(f"data/{layout.text}")) if layout.text else [])


def importing(made, out, *more):
    """Imports by the command, whatever its share of rejects; returns what it raised."""
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
    return result.exception


@pytest.mark.parametrize(("kind", "layout"), CASES, ids=[f"{kind.name}, {layout.name}" for kind, layout in CASES])
def test_what_an_importer_makes_of_a_nasty_file(kind, layout, tmp_path):
    made, out = make(layout, tmp_path, kind.captioned), tmp_path / "corpus"
    kind.spoil(made)
    raised = importing(made, out, *kind.options)
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
    assert {text for text in told if "street" in text} == {caption for _, caption in ROWS[: kind.rows]}
    assert len({row["image_sha256"] for row in (*queries, *items)} - {None}) == kind.rows * kind.has_pictures
    rejects = [json.loads(line) for line in (out / "rejects.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(rejects) == (2 - kind.rows) * layout.rows_for_one
    for reject in rejects:
        assert kind.reason in reject["reason"]
        assert len(json.dumps(reject)) < LONGEST_MESSAGE
