"""Imports of foreign layouts: accepted rows, rejected rows, and the reasons."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from miner.importers.building.build import build
from miner.importers.building.pair import Pair, Unread
from miner.importers.mmeb import read_mmeb
from miner.importers.pairs import read_pairs
from tests.miner.importers.imported import ROWS, take, write
from tests.pictures import png
from unijudge.errors import DataError
from unijudge.formats.corpus import Corpus


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "x.png").write_bytes(png())
    (folder / "broken.png").write_bytes(png()[:60])
    return folder


@pytest.mark.parametrize("ending", ["parquet", "jsonl", "csv"])
def test_pairs_become_a_corpus(tmp_path, images, ending):
    corpus, rejects = take(read_pairs(write(tmp_path / f"rows.{ending}", ROWS)), tmp_path, images)
    assert not rejects
    assert [(item.text, item.image, item.pools) for item in corpus.items] == [
        (None, "x.png", ("rows",)),
        ("x", None, ("rows",)),
    ]
    first, second = corpus.queries
    assert first.positive_ids == tuple(item.item_id for item in corpus.items)
    assert second.positive_ids == (corpus.items[1].item_id,)
    assert corpus.content(second).image == png()


def test_bad_rows_are_rejected_with_their_reason(tmp_path, images):
    bad = [
        {"query_text": "q", "positive_image": "nowhere.png"},
        {"query_text": "q", "positive_image": "broken.png"},
        {"query_text": "q", "positive_image": "../pairs.jsonl"},
        {"query_text": "q"},
        {"query_text": " ", "positive_text": "p"},
        {"query_text": "other", "positive_text": "p", "query_id": "1"},
        {"query_text": "\ud83d", "positive_text": "p"},
        {"query_text": "q", "positive_image": "x\0.png"},
    ]
    path = write(tmp_path / "pairs.jsonl", ROWS + bad)
    corpus, rejects = take(read_pairs(path), tmp_path, images, max_rejects=0.8)
    assert len(corpus.queries) == 2
    assert [reject["row"] for reject in rejects] == [
        f"pairs.jsonl:{number}" for number in range(4, 12)
    ]
    reasons = [
        "no such file", "not a whole", "not a path inside the folder", "positive: has neither a text nor an image",
        "query: has neither a text nor an image", "is already the id of a different query", "query: a lone surrogate",
        "positive: a lone",
    ]  # fmt: skip
    for reject, reason in zip(rejects, reasons, strict=True):
        assert reason in reject["reason"]


def test_too_many_rejects_leave_no_corpus(tmp_path, images):
    path = write(
        tmp_path / "pairs.jsonl", [*ROWS, {"query_text": "q", "positive_image": "nowhere.png"}]
    )
    with pytest.raises(
        DataError,
        match=r"1 of 4 rows rejected, more than --max-rejects 0.*nowhere\.png: no such file\. "
        rf"The names of images begin at {images} \(--images\)",
    ):
        take(read_pairs(path), tmp_path, images)
    assert {p.name for p in (tmp_path / "corpus").iterdir()} == {"rejects.jsonl"}


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.txt", "", r"expected a \.parquet"),
        (
            "a.jsonl",
            '{"query_text": "q", "positive_text": "p"}\n{',
            r"a\.jsonl:2: not JSON \(expecting .* at column 2\). Fix",
        ),
        ("a.jsonl", "[5]", "expected an object, found int"),
        (
            "a.jsonl",
            '{"query": "x"}',
            "none of its columns is known: query. Known columns: query_text",
        ),
        ("a.jsonl", '{"query_text": 5.5}', r"a\.jsonl:1: 5\.5 is not a text"),
        ("a.parquet", "hello", r"a\.parquet: cannot be read as parquet"),
        ("a.jsonl", b"\xff\xfe", r"a\.jsonl: is UTF-16, the encoding of PowerShell"),
        ("a.csv", b"query_text,positive_text\n\xff,b", r"a\.csv: is not UTF-8"),
        ("a.csv", "query_text,positive_text\na\n", "1 fields, but the first line has 2"),
        ("a.jsonl", "", "no rows"),
        ("a.jsonl", "\n \n", "no rows"),
        (
            "a.csv",
            "query_text,positive_text,positive_text\nq,right,wrong\n",
            "duplicate column 'positive_text'",
        ),
        (
            "a.jsonl",
            '{"query_text": "q", "query_text": "r"}',
            r"a\.jsonl:1: not JSON \(duplicate key 'query_text'",
        ),
        ("missing.csv", None, "no such file"),
    ],
)
def test_files_without_pairs_are_refused(tmp_path, images, name, content, reason):
    if content is not None:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=reason):
        take(read_pairs(tmp_path / name), tmp_path, images)


def test_a_parquet_file_with_a_column_twice_is_refused(tmp_path, images):
    columns = [pa.array(["q"]), pa.array(["right"]), pa.array(["wrong"])]
    names = ["query_text", "positive_text", "positive_text"]
    pq.write_table(pa.Table.from_arrays(columns, names), tmp_path / "a.parquet")
    with pytest.raises(
        DataError, match=r"a\.parquet: duplicate column 'positive_text'. Rename or remove one"
    ):
        take(read_pairs(tmp_path / "a.parquet"), tmp_path, images)


def test_a_byte_order_mark_and_blank_lines_are_ignored(tmp_path, images):
    row = '{"query_text": "q", "positive_text": "p"}\n'
    (tmp_path / "a.jsonl").write_text(f"\ufeff{row}\n{row}\n\n", encoding="utf-8")
    corpus, rejects = take(read_pairs(tmp_path / "a.jsonl"), tmp_path, images)
    assert not rejects
    assert [
        (query.text, corpus.items[corpus.positives(0)[0]].text) for query in corpus.queries
    ] == [("q", "p")] * 2


def test_a_missing_image_root_is_named(tmp_path):
    with pytest.raises(DataError, match="nowhere: no such folder of images"):
        take(iter(()), tmp_path, tmp_path / "nowhere")


@pytest.fixture
def mmeb(tmp_path, images):
    rows = [
        {
            "qry": "<|image_1|>\nWhich digit?\n", "qry_image_path": "x.png",
            "pos_text": "seven", "pos_image_path": "", "neg_text": "six",
        },
        {
            "qry": "<|image_1|>\nFind a Wikipedia image that answers: who?\n", "qry_image_path": "",
            "pos_text": "<|image_1|>\nRepresent the given image.\n", "pos_image_path": "x.png", "neg_text": "",
        },
    ]  # fmt: skip
    for subset, split in [
        ("Digits", "original"),
        ("WebQA", "original"),
        ("WebQA", "diverse_instruction"),
    ]:
        folder = tmp_path / "mmeb" / subset
        folder.mkdir(parents=True, exist_ok=True)
        write(folder / f"{split}-00000-of-00001.parquet", rows)
    return tmp_path / "mmeb"


def test_mmeb_train_is_imported_without_markers(tmp_path, images, mmeb):
    corpus, rejects = take(read_mmeb(mmeb), tmp_path, images)
    assert not rejects
    assert len(corpus.queries) == 4
    assert {query.subset for query in corpus.queries} == {"Digits", "WebQA"}
    first, second = corpus.queries[:2]
    assert (first.text, first.image) == ("Which digit?\n", "x.png")
    assert (second.text, second.image) == ("Find a Wikipedia image that answers: who?\n", None)
    assert [(item.text, item.image, item.pools) for item in corpus.items] == [
        ("seven", None, ("Digits", "WebQA")),
        ("Represent the given image.\n", "x.png", ("Digits", "WebQA")),
    ]


def test_mmeb_caps_splits_and_subsets(mmeb):
    assert len(list(read_mmeb(mmeb, cap_per_subset=1))) == 2
    assert (
        len([row for row in read_mmeb(mmeb, split="diverse_instruction") if isinstance(row, Pair)])
        == 2
    )
    rows = [row for row in read_mmeb(mmeb, subsets=["WebQA"]) if isinstance(row, Pair)]
    assert {row.subset for row in rows} == {"WebQA"}
    with pytest.raises(DataError, match="no subset 'Nope'"):
        list(read_mmeb(mmeb, subsets=["Nope"]))
    with pytest.raises(DataError, match=r"no subfolder has other-\*\.parquet"):
        list(read_mmeb(mmeb, split="other"))
    write(mmeb / "WebQA" / "original-00001.parquet", [{"x": 1}])
    with pytest.raises(DataError, match="no column 'pos_image_path'"):
        list(read_mmeb(mmeb))


def test_mmeb_text_that_is_not_utf8_is_rejected(tmp_path):
    offsets, letters = pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe")
    columns = {"qry": pa.Array.from_buffers(pa.string(), 1, [None, offsets, letters])}
    columns |= {name: pa.array(["x"]) for name in ("qry_image_path", "pos_text", "pos_image_path")}
    (tmp_path / "CIRR").mkdir()
    pq.write_table(pa.table(columns), tmp_path / "CIRR" / "original-00000.parquet")
    assert list(read_mmeb(tmp_path)) == [
        Unread("CIRR/original-00000:1", "CIRR", "column 'qry': not UTF-8")
    ]


def test_an_import_with_only_rejected_rows_writes_no_corpus(tmp_path, images):
    path = write(
        tmp_path / "pairs.jsonl", [{"query_text": "q", "positive_image": "nowhere.png"}] * 2
    )
    with pytest.raises(
        DataError, match=r"2 of 2 rows rejected, so no row is left\. No corpus was written"
    ):
        take(read_pairs(path), tmp_path, images, max_rejects=1)
    assert {p.name for p in (tmp_path / "corpus").iterdir()} == {"rejects.jsonl"}


def test_an_older_corpus_is_replaced_only_from_the_same_source_and_with_a_message(
    tmp_path, images, caplog
):
    path = write(tmp_path / "pairs.jsonl", ROWS)
    caplog.set_level("INFO")
    before, _ = take(read_pairs(path), tmp_path, images)
    assert not caplog.messages
    take(read_pairs(path), tmp_path, images)
    assert caplog.messages == [f"{tmp_path / 'corpus'}: the corpus is the same as before"]
    with pytest.raises(
        DataError,
        match=r"corpus: holds a corpus of test, but this import is of other\. Give another",
    ):
        build(
            read_pairs(path), images=images, out=tmp_path / "corpus", source="other", max_rejects=0
        )
    assert Corpus(tmp_path / "corpus").fingerprint == before.fingerprint
    write(path, ROWS[:2])
    take(read_pairs(path), tmp_path, images)
    assert "overwrote an earlier corpus of 2 queries and 2 items. Vectors, scores" in caplog.text


@pytest.mark.parametrize("strange", ["notes.txt", "manifest.json", "vectors"])
def test_a_folder_with_other_files_is_refused(tmp_path, images, strange):
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / strange).mkdir()
    path = write(tmp_path / "pairs.jsonl", ROWS)
    with pytest.raises(
        DataError, match=rf"corpus: holds {strange} already, .*. Give another folder"
    ):
        take(read_pairs(path), tmp_path, images)
    assert [p.name for p in (tmp_path / "corpus").iterdir()] == [strange]
    with pytest.raises(DataError, match=r"pairs\.jsonl: is a file. Give a folder"):
        build(read_pairs(path), images=images, out=path, source="test", max_rejects=0)


def test_a_failed_import_does_not_change_the_older_corpus(corpus, tmp_path):
    before = corpus.fingerprint
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(DataError, match="rows rejected, more than --max-rejects"):
        build(
            read_pairs(tmp_path / "pairs.jsonl"), images=tmp_path / "elsewhere", out=corpus.folder, source="t",
            max_rejects=0,
        )  # fmt: skip
    assert Corpus(corpus.folder).fingerprint == before


def test_files_of_several_splits_are_named(tmp_path, images, caplog):
    """The files are read, with a warning, because training rows could be rows of a test split."""
    for place in (
        "data/train-0.jsonl",
        "data/test-0.jsonl",
        "other/contest.jsonl",
        "other/trainer.jsonl",
    ):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        write(tmp_path / place, ROWS[:1])
    take(read_pairs(tmp_path / "other"), tmp_path / "a", images)
    assert not caplog.records
    take(read_pairs(tmp_path / "data"), tmp_path / "b", images)
    assert caplog.messages == [
        f"{tmp_path}/data: files of several splits (test, train) were read as one table. Give the files of one split"
    ]
