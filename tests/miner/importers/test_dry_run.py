"""A dry run counts the most common reasons, names what it ignores, and tells why nothing would be imported."""

import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.pictures import png
from unijudge.cli import run
from unijudge.errors import DataError
from unijudge.foreign.cells import Rejected


def dry(capsys, *words):
    """Returns the output and the error of a dry run."""
    try:
        run(["mine", "import", *map(str, words), "--dry-run"])
    except DataError as error:
        return capsys.readouterr().out, error
    return capsys.readouterr().out, None


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_reasons_are_counted_by_kind_and_the_commonest_five_are_named(tmp_path, capsys):
    """The values in a reason do not matter: 30 missing pictures have one reason. Five of six kinds are printed."""
    good = {"query_text": "a", "positive_text": "b"}
    rows = [good] * 10
    rows += [good | {"query_image": f"gone-{number}.png"} for number in range(30)]
    rows += [{"query_text": f"q {number}"} for number in range(8)]
    rows += [good | {"query_image": f"https://a/{number}.png"} for number in range(6)]
    rows += [good | {"query_text": [f"{number}"]} for number in range(5)]
    rows += [good | {"query_id": "one", "query_text": f"{number}"} for number in range(4)]
    rows += [good | {"positive_image": {"path": None}} for number in range(2)]
    write_lines(tmp_path / "rows.jsonl", rows)
    printed, raised = dry(capsys, "pairs", tmp_path, tmp_path / "out", "--images", tmp_path)
    assert re.search(
        r"read +11 rows: queries 11, items 1, pictures 0\n +rejected +54 rows\n", printed
    )
    found = re.findall(r"\n +(\d+) such as rows\.jsonl:(\d+): (.*)", printed)
    assert [(int(count), int(place)) for count, place, _ in found] == [
        (30, 11),
        (8, 41),
        (6, 49),
        (5, 55),
        (3, 61),
    ]
    assert [reason.split(":")[0] for *_, reason in found[:3]] == ["query", "positive", "query"]
    assert (
        str(raised)
        == "54 of 65 rows rejected, more than --max-rejects 0.01. Nothing would be imported"
    )


def test_ignored_files_and_columns_are_counted_and_named(tmp_path, capsys):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a.png").write_bytes(png())
    (folder / "README.md").write_text("About it")
    (folder / ".hidden").write_text("no data")
    columns = {f"column {number}": number for number in range(7)}
    write_lines(folder / "rows.jsonl", [{"query_image": "a.png", "positive_text": "b"} | columns])
    printed, raised = dry(capsys, "pairs", folder, tmp_path / "out", "--images", folder)
    assert raised is None
    names = ", ".join(list(columns)[:5])
    assert f"\n  ignored   7 columns ({names}, …); 1 file (README.md)\n" in printed
    assert "queries 1, items 1, pictures 1" in printed
    assert not (tmp_path / "out").exists()


def test_other_splits_are_ignored_and_counted(tmp_path, capsys):
    images = [
        {"filename": "a.png", "split": split, "sentences": [{"raw": "one"}]}
        for split in ("test", "train", "val")
    ]
    (tmp_path / "dataset_a.json").write_text(json.dumps({"images": images}))
    (tmp_path / "a.png").write_bytes(png())
    printed, _ = dry(
        capsys, "karpathy", tmp_path / "dataset_a.json", tmp_path / "out", "--images", tmp_path
    )
    assert (
        "\n  ignored   2 images of other splits (dataset_a.json:2, dataset_a.json:3)\n" in printed
    )

    row = {"qry": "q", "qry_image_path": "", "pos_text": "p", "pos_image_path": "", "neg_text": "n"}
    (tmp_path / "root" / "CIRR").mkdir(parents=True)
    for split in ("original", "diverse"):
        pq.write_table(
            pa.Table.from_pylist([row]), tmp_path / "root" / "CIRR" / f"{split}-0.parquet"
        )
    printed, _ = dry(capsys, "mmeb", tmp_path / "root", tmp_path / "out")
    assert (
        "\n  ignored   1 column (neg_text of CIRR); 1 file of other splits (CIRR/diverse-0.parquet)\n"
        in printed
    )


def test_rows_before_a_damaged_line_are_reported(tmp_path, capsys):
    (tmp_path / "rows.jsonl").write_text(
        '{"query_text": "a", "positive_text": "b"}\n{"query_text": \n'
    )
    printed, raised = dry(capsys, "pairs", tmp_path / "rows.jsonl", tmp_path / "out")
    assert "read      1 row: queries 1, items 1" in printed
    assert "rows.jsonl:2: not JSON" in str(raised)
    assert str(raised).endswith(". Nothing would be imported")


def test_an_output_that_an_import_would_refuse_is_refused(tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    write_lines(tmp_path / "rows.jsonl", [{"query_text": "a", "positive_text": "b"}])
    _, raised = dry(capsys, "pairs", tmp_path / "rows.jsonl", tmp_path / "out")
    assert "notes.txt" in str(raised)


def test_pictures_of_a_zip_are_not_copied(tmp_path, capsys):
    """Images inside rows are not copied either, although an import copies both."""
    table = pa.table({"query_image": [png()], "positive_text": ["b"]})
    pq.write_table(table, tmp_path / "rows.parquet")
    printed, _ = dry(
        capsys, "pairs", tmp_path / "rows.parquet", tmp_path / "out", "--images", tmp_path
    )
    assert "pictures 1" in printed
    assert [path.name for path in tmp_path.iterdir()] == ["rows.parquet"]


def test_files_that_several_importers_read_are_not_guessed(tmp_path):
    write_lines(
        tmp_path / "rows.jsonl",
        [{"query_text": "a", "positive_text": "b", "query": "a", "positive": "b"}],
    )
    with pytest.raises(
        DataError, match=r"may have one of several layouts: pairs, sentence-transformers\. Try each"
    ):
        run(["check", str(tmp_path / "rows.jsonl")])


def test_files_that_no_importer_reads_are_reported(tmp_path):
    (tmp_path / "rows.xlsx").write_bytes(b"PK")
    with pytest.raises(
        DataError, match=r"no importer can read it \(pairs: .*expected a .parquet, .jsonl"
    ):
        run(["check", str(tmp_path / "rows.xlsx")])


def test_reasons_of_one_kind_differ_only_in_values():
    kinds = {
        Rejected(f"{number} scores for a positive and {number} negatives. Expected 2").kind
        for number in (1, 22)
    }
    assert len(kinds) == 1
    assert Rejected("has no scores").kind != Rejected("no document is labelled as a match").kind
