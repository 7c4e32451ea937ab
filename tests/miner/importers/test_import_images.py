"""Images inside rows or zip files, and paths that must not be opened."""

import hashlib
import io
import struct
import zipfile
import zlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from miner.importers.mmeb import read_mmeb
from miner.importers.sentence_transformers import read_tuples
from tests.miner.importers.archives import archive, pairs, take
from tests.pictures import png
from unijudge.errors import DataError
from unijudge.foreign import pictures
from unijudge.formats.corpus import Corpus
from unijudge.formats.inventory import check


def encoded(kind):
    out = io.BytesIO()
    Image.new("RGB", (30, 20), "green").save(out, kind)
    return out.getvalue()


def bomb():
    """A PNG of two hundred bytes whose header says 9,000 × 9,000 pixels."""
    data = png()
    header = data[12:16] + struct.pack(">II", 20_000, 20_000) + data[24:29]
    return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


def stored(corpus):
    return {
        path.relative_to(corpus.images).as_posix()
        for path in corpus.images.rglob("*")
        if path.is_file()
    }


def test_plain_files_stay_where_they_are(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(png())
    corpus, _ = take(pairs(tmp_path, "a.png"), tmp_path / "corpus", tmp_path / "images")
    assert corpus.images == tmp_path / "images"
    assert corpus.items[0].image == "a.png"
    assert not (tmp_path / "corpus" / "images").exists()


def test_pictures_inside_the_rows_are_stored_by_content(tmp_path):
    """The layout is Hugging Face's Image feature: bytes if the row has bytes, otherwise a path.

    If some rows have bytes, plain files are copied too.
    """
    root = tmp_path / "MMEB"
    (root / "Digits").mkdir(parents=True)
    (root / "plain.png").write_bytes(png("blue"))
    text = {"qry": "<|image_1|>\nWhich?", "pos_text": "x"}
    rows = [
        {**text, "qry_image_path": {"bytes": None, "path": "plain.png"}, "pos_image_path": None},
        {
            **text,
            "qry_image_path": {"bytes": encoded("JPEG"), "path": "a.jpg"},
            "pos_image_path": None,
        },
        {
            **text,
            "qry_image_path": None,
            "pos_image_path": {"bytes": encoded("WEBP"), "path": None},
        },
        {
            **text,
            "qry_image_path": {"bytes": encoded("JPEG"), "path": "again.jpg"},
            "pos_image_path": None,
        },
        {**text, "qry_image_path": {"bytes": None, "path": None}, "pos_image_path": None},
        {
            **text,
            "qry_image_path": {"bytes": png()[:60], "path": "torn.png"},
            "pos_image_path": None,
        },
        {**text, "qry_image_path": {"bytes": bomb(), "path": "bomb.png"}, "pos_image_path": None},
    ]
    pq.write_table(pa.Table.from_pylist(rows), root / "Digits" / "original-0.parquet")
    corpus, rejects = take(read_mmeb(root), tmp_path / "corpus", root, max_rejects=0.5)
    reasons = [
        "an image struct with neither bytes nor path",
        "query: image inside the row: not a whole JPEG, PNG or WebP image",
        "query: image inside the row: image of 20000×20000 pixels: more than 200000000",
    ]
    for reject, reason in zip(rejects, reasons, strict=True):
        assert reject.startswith(reason)
    assert corpus.images == tmp_path / "corpus" / "images"
    good = {"png": png("blue"), "jpg": encoded("JPEG"), "webp": encoded("WEBP")}
    shas = {ending: hashlib.sha256(data).hexdigest() for ending, data in good.items()}
    assert stored(corpus) == {f"{sha[:2]}/{sha}.{ending}" for ending, sha in shas.items()}
    assert [corpus.content(query).image for query in corpus.queries] == [
        good["png"], good["jpg"], None, good["jpg"],
    ]  # fmt: skip
    assert "whole: 6 rows" in check(corpus.folder)


def test_a_corpus_that_holds_its_images_can_be_moved(tmp_path):
    zipped = archive(tmp_path / "all.zip", {"a.png": png()})
    corpus, _ = take(pairs(tmp_path, "a.png"), tmp_path / "corpus", zipped)
    zipped.unlink()
    moved = Corpus(corpus.folder.rename(tmp_path / "elsewhere"))
    assert moved.content(moved.items[0]).image == png()


def test_members_of_zip_files(tmp_path):
    """The files are as in MMEB: the rows name images/SUBSET/…, and the paths in the zip file of a subset begin with
    SUBSET. A plain file has priority.
    """
    root = tmp_path / "MMEB-train"
    archive(
        root / "images_zip" / "CIRR.zip",
        {"CIRR/Train/a.png": png("red"), "CIRR/Train/b.png": png("green")},
    )
    archive(root / "val2017.zip", {"val2017/c.png": png("blue")})
    (root / "images/CIRR/Train").mkdir(parents=True)
    (root / "images/CIRR/Train/b.png").write_bytes(png("white"))
    names = [
        "images/CIRR/Train/a.png",
        "images/CIRR/Train/b.png",
        "c.png",
        "images/CIRR/Train/none.png",
    ]
    corpus, rejects = take(pairs(tmp_path, *names), tmp_path / "corpus", root, max_rejects=0.3)
    assert [corpus.content(item).image for item in corpus.items] == [
        png("red"),
        png("white"),
        png("blue"),
    ]
    assert rejects == [
        "positive: image images/CIRR/Train/none.png: no such file, nor in 2 zip files"
    ]
    assert len(stored(corpus)) == 3


def test_hostile_members_of_a_zip_are_rejected(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "MAX_BYTES", 4096)
    zipped = archive(
        tmp_path / "hostile.zip",
        {
            "../../escaped.png": png(), "/rooted.png": png(), "large.png": bytes(5000), "torn.png": png()[:60],
            "bomb.png": bomb(), "liar.png": bytes(5000), "crc.png": png("green"), "folder/": b"",
        },
    )  # fmt: skip
    data = zipped.read_bytes()
    with zipfile.ZipFile(zipped) as opened:
        start = opened.getinfo("crc.png").header_offset + 30 + len("crc.png")
        packed = opened.getinfo("crc.png").compress_size
    data = data[:start] + bytes(packed) + data[start + packed :]
    place = data.rindex(b"liar.png") - 22  # the size that the table of contents declares
    assert struct.unpack("<I", data[place : place + 4]) == (5000,)
    zipped.write_bytes(data[:place] + struct.pack("<I", 10) + data[place + 4 :])
    names = [
        "../../escaped.png",
        "large.png",
        "torn.png",
        "bomb.png",
        "liar.png",
        "crc.png",
        "folder",
        "../x/folder/",
    ]
    (tmp_path / "in").mkdir()
    corpus, rejects = take(
        pairs(tmp_path, *names), tmp_path / "in" / "corpus", zipped, max_rejects=1
    )
    reasons = [
        "larger than 4,096 bytes", "not a whole", "20000×20000", "cannot be read from its zip file",
        "cannot be read from its zip file", "no such file, nor in 1 zip files", "no such file, nor in 1 zip files",
    ]  # fmt: skip
    for reject, reason in zip(rejects, reasons, strict=True):
        assert reason in reject
    sha = hashlib.sha256(png()).hexdigest()
    assert stored(corpus) == {f"{sha[:2]}/{sha}.png"}
    assert not list(tmp_path.rglob("*escaped*"))


def test_a_name_in_two_archives_is_an_error(tmp_path):
    archive(tmp_path / "images" / "a.zip", {"x.png": png("red")})
    archive(tmp_path / "images" / "b.zip", {"x.png": png("blue")})
    with pytest.raises(
        DataError,
        match=r"image x\.png: x\.png is in 2 zip files. Set --images to the right zip file",
    ):
        take(pairs(tmp_path, "x.png"), tmp_path / "corpus", tmp_path / "images", max_rejects=1)


def test_a_large_plain_file_is_rejected(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "MAX_BYTES", 100)
    (tmp_path / "x.png").write_bytes(png())
    with pytest.raises(
        DataError, match=r"positive: image x\.png: larger than 100 bytes. Scale it down"
    ):
        take(pairs(tmp_path, "x.png"), tmp_path / "corpus", tmp_path, max_rejects=1)


def test_a_loop_of_links_is_rejected(tmp_path):
    (tmp_path / "x.png").symlink_to(tmp_path / "x.png")
    with pytest.raises(
        DataError, match=r"positive: image x\.png: cannot be read \(a loop of symbolic links\)"
    ):
        take(pairs(tmp_path, "x.png"), tmp_path / "corpus", tmp_path, max_rejects=1)


def test_a_damaged_zip_is_named_when_a_picture_is_searched_in_it(tmp_path):
    whole = archive(tmp_path / "images" / "a.zip", {"x.png": png()}).read_bytes()
    (tmp_path / "images" / "a.zip").write_bytes(whole[:-30])
    with pytest.raises(DataError, match=r"a\.zip: not a complete zip file"):
        take(pairs(tmp_path, "x.png"), tmp_path / "corpus", tmp_path / "images")
    assert not (tmp_path / "corpus").exists()
    (tmp_path / "images" / "x.png").write_bytes(png())
    corpus, _ = take(pairs(tmp_path, "x.png"), tmp_path / "corpus", tmp_path / "images")
    assert corpus.items[0].image == "x.png"


def test_a_file_that_changes_during_the_import_is_named(tmp_path):
    def rows(spoil):
        (tmp_path / "a.png").write_bytes(png())
        yield from pairs(tmp_path, "a.png")
        spoil(tmp_path / "a.png")
        path = tmp_path / "inline.parquet"
        pq.write_table(
            pa.Table.from_pylist([{"anchor": {"bytes": png(), "path": None}, "positive": "x"}]),
            path,
        )
        yield from read_tuples(path)

    with pytest.raises(DataError, match=r"a\.png: changed during the import"):
        take(rows(lambda path: path.write_bytes(png("blue"))), tmp_path / "corpus", tmp_path)
    with pytest.raises(DataError, match=r"a\.png: was removed during the import .no such file"):
        take(rows(lambda path: path.unlink()), tmp_path / "corpus", tmp_path)
