"""Commands that read foreign files from an object store, or write there: imports and exports."""

import json
import logging

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from miner.cli import app
from tests.miner.selections import lines, opened
from tests.pictures import png
from unijudge.errors import SettingsError
from unijudge.formats.corpus import Corpus
from unijudge.formats.inventory import check
from unijudge.storage.locations import is_local, locate


@pytest.fixture
def run(bucket, caplog):
    """Runs a command. `BUCKET` in the command stands for the URL of the bucket."""
    caplog.set_level(logging.ERROR)

    def command(*words):
        done = CliRunner().invoke(app, [str(word).replace("BUCKET", bucket) for word in words])
        if done.exception is not None:
            raise done.exception
        return done.output

    return command


def send(path, bucket, name=""):
    """Copies a file or a folder into the bucket."""
    place = locate(bucket)
    place.fs.put(str(path), (place / (name or path.name)).path, recursive=path.is_dir())


def write_pairs(folder, *rows):
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_texts_alone_are_imported_into_a_bucket(run, bucket, tmp_path):
    pairs = write_pairs(tmp_path, {"query_text": "a", "positive_text": "b"})
    assert "1 queries, 1 items" in run("import", "pairs", pairs, "BUCKET/corpus")
    corpus = Corpus(locate(bucket) / "corpus")
    assert [corpus.content(item).text for item in corpus.items] == ["b"]
    assert "whole" in check(corpus.folder)


def test_pictures_of_a_disk_are_copied_into_the_bucket(run, bucket, tmp_path):
    (tmp_path / "images").mkdir()
    for name, color in (("a.png", "red"), ("b.png", "blue")):
        (tmp_path / "images" / name).write_bytes(png(color))
    rows = [
        {"query_image": "a.png", "positive_image": "b.png"},
        {"query_text": "x", "positive_image": "a.png"},
    ]
    run(
        "import",
        "pairs",
        write_pairs(tmp_path, *rows),
        "BUCKET/corpus",
        "--images",
        tmp_path / "images",
    )
    for path in (tmp_path / "images").iterdir():
        path.unlink()
    corpus = Corpus(locate(bucket) / "corpus")
    assert corpus.images == locate(bucket) / "corpus" / "images"
    assert [corpus.content(item).image for item in corpus.items] == [png("blue"), png("red")]


def test_rows_and_pictures_are_read_from_a_bucket(run, bucket, tmp_path):
    """The pictures stay in the bucket, also if the corpus is written to a disk."""
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(png("red"))
    send(tmp_path / "images", bucket)
    for name in ("pairs.jsonl", "pairs.csv", "pairs.parquet"):
        row = {"query_text": "x", "positive_image": "a.png"}
        if name.endswith("jsonl"):
            write_pairs(tmp_path, row)
        elif name.endswith("csv"):
            (tmp_path / name).write_text("query_text,positive_image\nx,a.png\n")
        else:
            pq.write_table(pa.Table.from_pylist([row]), tmp_path / name)
        send(tmp_path / name, bucket)
        out = tmp_path / f"corpus of {name}"
        run("import", "pairs", f"BUCKET/{name}", out, "--images", "BUCKET/images")
        corpus = Corpus(out)
        assert not is_local(corpus.images)
        assert corpus.content(corpus.items[0]).image == png("red")


def test_published_layouts_are_read_from_a_bucket(run, bucket, tmp_path):
    row = {"qry": "q", "qry_image_path": "", "pos_text": "p", "pos_image_path": "images/a.png"}
    for folder in ("mmeb/WebQA", "mmeb/images", "crepe"):
        (tmp_path / folder).mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "mmeb" / "WebQA" / "original-0.parquet")
    (tmp_path / "mmeb" / "images" / "a.png").write_bytes(png())
    said = {"0": {"filename": "a.png", "caption": "right", "negative_caption": "wrong"}}
    (tmp_path / "crepe" / "swap_att.json").write_text(json.dumps(said))
    sentences = [{"filename": "a.png", "split": "test", "sentences": [{"raw": "one"}]}]
    (tmp_path / "dataset_x.json").write_text(json.dumps({"images": sentences}))
    for name in ("mmeb", "crepe", "dataset_x.json"):
        send(tmp_path / name, bucket)
    assert "1 queries, 1 items, 0 rows" in run("import", "mmeb", "BUCKET/mmeb", "BUCKET/c1")
    images = ["--images", "BUCKET/mmeb/images"]
    assert "1 queries, 2 items, 0 rows" in run(
        "import", "sugarcrepe", "BUCKET/crepe", "BUCKET/c2", *images
    )
    assert "2 queries, 2 items, 0 rows" in run(
        "import", "karpathy", "BUCKET/dataset_x.json", "BUCKET/c3", *images
    )


def test_published_scores_are_imported_into_the_bucket(run, bucket, tmp_path):
    (tmp_path / "rows.jsonl").write_text(
        json.dumps({"anchor": "q", "positive": "p", "negative": "n", "scores": [0.9, 0.2]}) + "\n"
    )
    send(tmp_path / "rows.jsonl", bucket)
    words = ["BUCKET/rows.jsonl", "BUCKET/corpus", "--scores", "BUCKET/scores"]
    assert "1 queries, 2 items" in run("import", "sentence-transformers", *words)
    assert "whole: 1 rows read" in check(locate(bucket) / "scores")


def test_a_selection_in_a_bucket_is_exported(run, bucket, tmp_path):
    opened(tmp_path)
    for name in ("corpus", "triples", "images"):
        send(tmp_path / name, bucket)
    words = ["BUCKET/triples", "--corpus", "BUCKET/corpus"]
    with pytest.raises(
        SettingsError, match=r"s3://.*images: the images are in an object store, .*Set --image-root"
    ):
        run("export", "swift", words[0], tmp_path / "out.jsonl", *words[1:])
    assert not list(tmp_path.glob("out*"))
    run("export", "swift", words[0], tmp_path / "out.jsonl", *words[1:], "--image-root", "/data")
    assert [line["images"] for line in lines(tmp_path / "out.jsonl")] == [[], ["/data/a.png"]]
    run(
        "export",
        "tevatron",
        words[0],
        "BUCKET/tevatron",
        *words[1:],
        "--image-root",
        "BUCKET/images",
    )
    with (locate(bucket) / "tevatron" / "corpus" / "train.parquet").open("rb") as file:
        images = pq.read_table(file)["image"].to_pylist()
    assert [image and image["path"] for image in images] == [
        None, f"{bucket}/images/a.png", f"{bucket}/images/sub/b.png", None,
    ]  # fmt: skip
    run("export", "unime", words[0], "BUCKET/unime.json", *words[1:], "--negatives", "3")
    assert json.loads((locate(bucket) / "unime.json").read_text())[1]["query_image"] == "a.png"
