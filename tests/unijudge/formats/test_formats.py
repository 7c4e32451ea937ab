"""Written folders are read back. Damaged, foreign or changed files are refused, and the message names the file."""

import hashlib
import shutil

import numpy as np
import pytest

from tests.pictures import png
from unijudge.content import content_key
from unijudge.errors import DataError, FolderBusy
from unijudge.formats.corpus import ITEMS, Corpus, Item, Query, write_corpus
from unijudge.formats.inventory import check, describe
from unijudge.formats.parts import part_path
from unijudge.formats.scores import Judged, JudgedQuery, ScoreManifest, read_scores, write_shard
from unijudge.formats.triples import (
    Negative,
    Triple,
    TripleManifest,
    finish_triples,
    read_triples,
    write_triples,
)
from unijudge.formats.vectors import (
    VectorFolder,
    VectorManifest,
    missing_vector_parts,
    start_vectors,
    write_vectors_part,
)
from unijudge.storage.files import publish_json, publishing
from unijudge.storage.leases import lease


@pytest.fixture
def corpus(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    data = png()
    (images / "a.png").write_bytes(data)
    sha = hashlib.sha256(data).hexdigest()
    items = [
        Item("i0", ("p",), text="a red square"),
        Item("i1", ("p", "q"), image="a.png", image_sha256=sha),
    ]
    queries = [
        Query("q0", "p", ("i0",), image="a.png", image_sha256=sha, candidates=(0, 1)),
        Query("q1", "q", ("i1",), text="red"),
    ]
    write_corpus(tmp_path / "corpus", items, queries, images=images, rejects=0, source="test")
    opened = Corpus(tmp_path / "corpus")
    assert list(opened.items) == items
    assert list(opened.queries) == queries
    return opened


def judged(item, rank=0, yes=-0.5):
    return Judged(item, content_key(item, None), rank, 0.5, yes, -1.0)


def test_a_corpus_is_read_back_with_its_images(corpus):
    assert corpus.content(corpus.items[1]).image == png()
    assert "whole: 4 rows" in check(corpus.folder)


def test_an_image_that_changed_is_refused(corpus):
    (corpus.images / "a.png").write_bytes(png("blue"))
    with pytest.raises(DataError, match=r"a\.png: changed since it was imported"):
        corpus.content(corpus.items[1])


def test_a_missing_image_is_named(corpus):
    (corpus.images / "a.png").unlink()
    with pytest.raises(DataError, match=r"a\.png: cannot be read"):
        check(corpus.folder)


def manifest(identity, queries=3, in_shard=2):
    return ScoreManifest(
        corpus="c",
        vectors="v",
        queries=queries,
        shard_size=in_shard,
        k=50,
        pool="global",
        judge=identity,
    )


def test_scores_are_read_back(tmp_path, identity):
    rows = [
        JudgedQuery(
            f"q{i}", "s", bytes(16), [judged("p", None)], [judged("a"), judged("b", 1, None)]
        )
        for i in range(3)
    ]
    plan = manifest(identity)
    publish_json(tmp_path / "manifest.json", plan)
    write_shard(tmp_path, plan, 0, rows[:2])
    with pytest.raises(DataError, match="1 of 2 shards are missing"):
        list(read_scores(tmp_path))
    assert list(read_scores(tmp_path, partial=True)) == rows[:2]
    assert "1 files missing" in describe(tmp_path)
    write_shard(tmp_path, plan, 1, rows[2:])
    assert list(read_scores(tmp_path)) == rows
    assert "3 rows read" in check(tmp_path)


@pytest.mark.parametrize("damage", ["torn", "foreign", "other table"])
def test_a_damaged_shard_is_named(tmp_path, identity, damage):
    plan = manifest(identity, queries=1)
    publish_json(tmp_path / "manifest.json", plan)
    path = part_path(tmp_path, 0)
    write_shard(tmp_path, plan, 0, [JudgedQuery("q", "s", bytes(16), [], [judged("a")])])
    if damage == "torn":
        path.write_bytes(path.read_bytes()[:-20])
    elif damage == "foreign":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table({"x": [1]}), path)
    else:
        write_triples(tmp_path, [Triple("q", "s", judged("p"), [])])
    with pytest.raises(
        DataError, match=r"part-00000\.parquet: (not a whole|expected table 'scores')"
    ):
        list(read_scores(tmp_path))


def test_a_shard_of_another_plan_or_place_is_named(tmp_path, identity):
    plan = manifest(identity, queries=4)
    publish_json(tmp_path / "manifest.json", plan)
    rows = [JudgedQuery("q", "s", bytes(16), [], [judged("a")])] * 2
    write_shard(tmp_path, plan, 0, rows)
    write_shard(tmp_path, plan.model_copy(update={"k": 1}), 1, rows)
    with pytest.raises(
        DataError, match=r"part-00001\.parquet: was written for another plan or another shard"
    ):
        list(read_scores(tmp_path))
    shutil.copy(part_path(tmp_path, 0), part_path(tmp_path, 1))
    with pytest.raises(
        DataError, match=r"part-00001\.parquet: was written for another plan or another shard"
    ):
        check(tmp_path)


def test_triples_are_read_back(tmp_path):
    negative = Negative(**vars(judged("n")), beta=0.5, duplicate=True)
    rows = [Triple("q", "s", judged("p", None), [negative])]
    assert write_triples(tmp_path, rows) == 1
    with pytest.raises(DataError, match=r"triples\.json: no such file"):
        list(read_triples(tmp_path, "c"))
    made = TripleManifest(
        corpus="c", scores="s", selection={}, rows=1, negatives_in_row=1, statistics={}
    )
    finish_triples(tmp_path, made)
    assert list(read_triples(tmp_path, "c")) == rows
    with pytest.raises(DataError, match="another corpus"):
        list(read_triples(tmp_path, "other"))


def vector_manifest(**changes):
    made = VectorManifest(
        corpus="c", model="m", weights="w", encoding="chat", width=4, dtype="float16", items=2, queries=0,
        min_pixels=1, max_pixels=2, model_dtype="float32",
    )  # fmt: skip
    return made.model_copy(update=changes)


def test_vectors_are_read_back_and_checked(tmp_path, corpus):
    made = vector_manifest(corpus=corpus.fingerprint, queries=2)
    folder = tmp_path / "v"
    start_vectors(folder, made)
    ((path, rows),) = missing_vector_parts(folder, made, "items")
    assert rows == range(2)
    vectors = np.eye(4, dtype=np.float32)[:2]
    with pytest.raises(DataError, match=r"no such file. Run its writer again"):
        VectorFolder(folder, corpus).whole("items")
    write_vectors_part(path, made, ["i0", "i1"], vectors)
    assert (VectorFolder(folder, corpus).whole("items") == vectors).all()
    assert (
        VectorFolder(folder, corpus).take("items", np.array([1, 0, 1])) == vectors[[1, 0, 1]]
    ).all()
    write_vectors_part(path, made, ["i0", "x"], vectors)
    with pytest.raises(DataError, match="ids are not those"):
        VectorFolder(folder, corpus).whole("items")
    write_vectors_part(path, made, ["i0"], vectors[:1])
    with pytest.raises(DataError, match="1 vectors, but the part has 2 rows"):
        VectorFolder(folder, corpus).whole("items")
    with pytest.raises(DataError, match=r"holds other vectors .model differ"):
        start_vectors(folder, made.model_copy(update={"model": "n"}))
    write_vectors_part(path, made.model_copy(update={"max_pixels": 3}), ["i0", "i1"], vectors)
    with pytest.raises(DataError, match="belongs to another embedding"):
        VectorFolder(folder, corpus).whole("items")
    (folder / "vectors.json").unlink()
    with pytest.raises(
        DataError, match=r"holds items-00000\.parquet.* already, which would be mixed"
    ):
        start_vectors(folder, made)


def test_vectors_of_another_corpus_are_refused(tmp_path, corpus):
    start_vectors(tmp_path / "v", vector_manifest())
    with pytest.raises(DataError, match="another corpus"):
        VectorFolder(tmp_path / "v", corpus)


def test_vectors_are_read_block_by_block(tmp_path, corpus, monkeypatch):
    """The parts have four rows, in groups of two.

    For any rows, the vectors come in order, and only from the blocks of these rows.
    """
    monkeypatch.setattr("unijudge.formats.vectors.ROWS_IN_PART", 4)
    monkeypatch.setattr("unijudge.formats.vectors.ROWS_IN_BLOCK", 2)
    items = [Item(f"i{n}", ("p",), text=f"{n}") for n in range(11)]
    manifest = write_corpus(
        tmp_path / "many",
        items,
        [Query("q", "p", ("i0",), text="q")],
        images=tmp_path,
        rejects=0,
        source="t",
    )
    many, made = (
        Corpus(tmp_path / "many"),
        vector_manifest(corpus=manifest.fingerprint, items=11, dtype="float32"),
    )
    vectors = np.random.default_rng(0).normal(size=(11, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    start_vectors(tmp_path / "v", made)
    for path, rows in missing_vector_parts(tmp_path / "v", made, "items"):
        write_vectors_part(path, made, [f"i{row}" for row in rows], vectors[rows.start : rows.stop])
    folder = VectorFolder(tmp_path / "v", many)
    assert [rows for rows, _ in folder.blocks("items")] == [
        range(a, min(a + 2, 11)) for a in range(0, 11, 2)
    ]
    assert [rows for rows, _ in folder.blocks("items", range(5, 7))] == [range(4, 6), range(6, 8)]
    wanted = np.array([10, 0, 3, 3, 7])
    assert np.array_equal(folder.take("items", wanted), vectors[wanted])
    assert np.array_equal(folder.whole("items"), vectors)


def test_duplicate_ids_are_refused(tmp_path):
    items = [Item("i", ("p",), text="a"), Item("i", ("p",), text="b")]
    write_corpus(tmp_path / "c", items, [], images=tmp_path, rejects=0, source="t")
    with pytest.raises(DataError, match=r"duplicate item id 'i'"):
        Corpus(tmp_path / "c")


def test_a_positive_outside_of_the_corpus_is_named(tmp_path):
    queries = [Query("q0", "p", ("i",), text="q"), Query("q1", "p", ("i", "gone"), text="r")]
    write_corpus(
        tmp_path / "c",
        [Item("i", ("p",), text="a")],
        queries,
        images=tmp_path,
        rejects=0,
        source="t",
    )
    with pytest.raises(DataError, match=r"query 'q1': positive 'gone' is not among the items"):
        Corpus(tmp_path / "c")


@pytest.mark.parametrize("value", [np.nan, 3.0, 0.0])
def test_vectors_without_unit_length_are_refused(tmp_path, value):
    with pytest.raises(DataError, match="1 vectors are not of unit length"):
        write_vectors_part(
            tmp_path / "x.parquet", vector_manifest(), ["a"], np.array([[value, 0.0]])
        )
    assert not list(tmp_path.iterdir())


def test_no_partial_file_is_left(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("before")
    with (
        pytest.raises(UnicodeEncodeError),
        publishing(path) as draft,
        draft.open("w", encoding="ascii") as out,
    ):
        out.write("half, then é")
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    assert path.read_text() == "before"


def test_a_full_disk_is_named(tmp_path):
    with (
        pytest.raises(DataError, match=r"a\.txt: cannot be written"),
        publishing(tmp_path / "x" / "a.txt"),
    ):
        raise OSError(28, "No space left on device")


def test_a_second_writer_is_refused(tmp_path):
    out = tmp_path / "new" / "out"
    with lease(out), pytest.raises(FolderBusy, match=r"process [0-9]+ is writing"), lease(out):
        pass
    with lease(out):
        pass
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be written"), lease(tmp_path / "file" / "out"):
        pass


def test_a_corpus_that_changed_since_its_manifest_is_refused(corpus):
    items = [Item("i0", ("p",), text="something else"), Item("i1", ("p",), text="b")]
    ITEMS.write(corpus.folder / "items.parquet", [vars(item) for item in items])
    with pytest.raises(
        DataError, match=r"items\.parquet: changed since it was written. Import again"
    ):
        Corpus(corpus.folder)
