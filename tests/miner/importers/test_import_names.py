"""Names in an import: the names of pictures, archives, sources and the corpus folder."""

import json

import pytest
from typer.testing import CliRunner

from miner.importers.cli import imports
from tests.miner.importers.archives import archive, pairs, take
from tests.pictures import png
from unijudge.errors import DataError
from unijudge.formats.corpus import Corpus
from unijudge.formats.inventory import check


def test_a_picture_of_another_data_set_is_not_taken(tmp_path):
    """The first folders of a name may be dropped only if they are the name of the archive."""
    root = tmp_path / "MMEB"
    archive(root / "SUN397.zip", {"SUN397/Train/1.png": png("red"), "Train/2.png": png("green")})
    names = ["images/VOC2007/Train/1.png", "VOC2007/Train/1.png", "images/Train/2.png"]
    _, rejects = take(
        pairs(tmp_path, *names, "images/SUN397/Train/1.png"), tmp_path / "c", root, max_rejects=0.8
    )
    assert rejects == [
        f"positive: image {name}: no such file, nor in 1 zip files" for name in names
    ]
    archive(root / "VOC2007.zip", {"Train/1.png": png("blue")})
    corpus, rejects = take(pairs(tmp_path, *names), tmp_path / "c2", root, max_rejects=0.5)
    assert [corpus.content(item).image for item in corpus.items] == [png("blue")]
    assert rejects == ["positive: image images/Train/2.png: no such file, nor in 2 zip files"]


def test_names_are_written_as_they_are_published(tmp_path):
    """Each file has one name. A name that `mine publish` refuses is also refused for a plain file."""
    (tmp_path / "images" / "sub").mkdir(parents=True)
    for name, color in (("a.png", "red"), ("sub/b.png", "blue")):
        (tmp_path / "images" / name).write_bytes(png(color))
    names = [
        "./a.png",
        "sub//b.png",
        "sub\\b.png",
        f"{tmp_path}/images/sub/b.png",
        "sub/../a.png",
        "../images/a.png",
    ]
    corpus, rejects = take(
        pairs(tmp_path, *names), tmp_path / "c", tmp_path / "images", max_rejects=0.5
    )
    assert {item.image for item in corpus.items} == {"a.png", "sub/b.png"}
    assert len(rejects) == 2
    for name, reject in zip(names[-2:], rejects, strict=True):
        assert reject == (
            f"positive: image {name}: '{name}' is not a path inside the folder. Give its path under --images, "
            "without .."
        )


def test_a_new_import_repairs_a_damaged_copy(tmp_path, caplog):
    zipped = archive(tmp_path / "all.zip", {"a.png": png("red"), "b.png": png("blue")})
    corpus, _ = take(pairs(tmp_path, "a.png", "b.png"), tmp_path / "corpus", zipped)
    spoiled = corpus.images / corpus.items[0].image
    spoiled.write_bytes(png("white"))
    with pytest.raises(
        DataError, match=r"changed since it was imported. Restore it or import again"
    ):
        check(corpus.folder)
    take(pairs(tmp_path, "a.png", "b.png"), tmp_path / "corpus", zipped)
    assert "1 copied images were damaged and were copied again" in caplog.text
    assert check(corpus.folder).endswith("whole: 4 rows read")


def test_a_corpus_is_replaced_only_from_the_same_source(tmp_path, monkeypatch):
    """The same relative name in two folders means two files. `.` is a folder like any other."""
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        line = json.dumps({"query_text": folder, "positive_text": "x"})
        (tmp_path / folder / "p.jsonl").write_text(line + "\n")
    runner, out = CliRunner(), str(tmp_path / "corpus")
    monkeypatch.chdir(tmp_path / "one")
    assert runner.invoke(imports, ["pairs", "p.jsonl", out]).exit_code == 0
    assert runner.invoke(imports, ["pairs", str(tmp_path / "one" / "p.jsonl"), out]).exit_code == 0
    monkeypatch.chdir(tmp_path / "two")
    refused = runner.invoke(imports, ["pairs", "p.jsonl", out])
    assert "holds a corpus of" in str(refused.exception)
    assert Corpus(tmp_path / "corpus").queries[0].text == "one"
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    done = runner.invoke(imports, ["pairs", str(tmp_path / "one" / "p.jsonl"), "."])
    assert done.exit_code == 0, done.exception
    assert Corpus(tmp_path / "here").queries[0].text == "one"
    assert {path.name for path in tmp_path.iterdir()} == {
        "one",
        "two",
        "corpus",
        "here",
        ".corpus.lease",
        ".here.lease",
    }
