"""Each export is compared with expectations that were written by hand."""

import json
import math
from dataclasses import replace
from functools import partial

import pyarrow.parquet as pq
import pytest

from miner.exporters.flagembedding import export_flagembedding
from miner.exporters.sentence_transformers import export_sentence_transformers
from miner.exporters.swift import export_swift
from miner.exporters.tevatron import export_tevatron
from miner.exporters.training_rows import TIME, TrainingRows
from miner.exporters.unime import export_unime
from tests.miner.selections import (
    ITEMS,
    QUERIES,
    TEXT_ITEMS,
    TEXT_QUERIES,
    TRIPLES,
    judged,
    left_out,
    lines,
    negative,
    opened,
)  # fmt: skip
from unijudge.errors import DataError
from unijudge.formats.triples import Extra, Triple


@pytest.fixture
def make(tmp_path):
    return partial(opened, tmp_path)


def near(values):
    return pytest.approx(values, abs=1e-6)


def test_sentence_transformers_texts(make, tmp_path):
    rows = make(TEXT_ITEMS, TEXT_QUERIES)
    export_sentence_transformers(rows, tmp_path / "st.parquet", negatives=2)
    table = pq.read_table(tmp_path / "st.parquet")
    assert table.column_names == ["query", "positive", "negative_1", "negative_2", "label"]
    first, second = table.to_pylist()
    assert list(first.values())[:4] == ["find a cat", "a tiger", "a dog", "a cat"]
    assert first["label"] == near([0.75, 0.25, 0.5])
    assert list(second.values())[:4] == ["who meows?", "a cat", "a dog", "a cow"]
    assert second["label"] == near([0.5, 0.25, 0.5])
    assert (rows.written, rows.weighted, rows.left_out) == (2, 1, {})


def test_sentence_transformers_pictures(make, tmp_path):
    """A missing input is an empty list, because the library would take null for an input."""
    rows = make()
    export_sentence_transformers(rows, tmp_path / "st.parquet", scores=False)
    (row,) = pq.read_table(tmp_path / "st.parquet").to_pylist()
    images = tmp_path / "images"
    assert row == {
        "query": {"image": [str(images / "a.png")], "text": ["what is it?\n"]},
        "positive": {"image": [], "text": ["a cat"]},
        "negative_1": {"image": [], "text": ["a dog"]},
        "negative_2": {"image": [str(images / "sub/b.png")], "text": ["the cat of the picture"]},
        "negative_3": {"image": [str(images / "a.png")], "text": []},
    }
    assert left_out(rows) == {"fewer than 3 distinct negatives": (1, "q0")}


@pytest.mark.parametrize(
    ("root", "path"), [("/data/mmeb/", "/data/mmeb/a.png"), ("", "a.png"), ("/", "/a.png")]
)
def test_another_root_of_the_images(make, tmp_path, root, path):
    export_swift(make(image_root=root), tmp_path / "swift.jsonl")
    assert lines(tmp_path / "swift.jsonl")[1]["images"] == [path]


def test_scores_are_divided_as_the_selection_did(make, tmp_path):
    export_sentence_transformers(make(divisor=2.0), tmp_path / "st.parquet", negatives=2)
    odds = math.sqrt(3)
    label = pq.read_table(tmp_path / "st.parquet").to_pylist()[0]["label"]
    assert label == near([odds / (1 + odds), 1 / (1 + odds), 0.5])


def test_flagembedding(make, tmp_path):
    """The rows have the keys that FlagEmbedding's loader reads. pos and neg are lists, and so are their scores."""
    rows = make(TEXT_ITEMS, TEXT_QUERIES)
    constants = {"prompt": "Given a question, find the animal.", "type": "normal"}
    export_flagembedding(rows, tmp_path / "f.jsonl", extra_positives=True, constants=constants)
    first, second = lines(tmp_path / "f.jsonl")
    assert first == {
        "query": "find a cat",
        "pos": ["a tiger", "a cow"],
        "pos_scores": near([0.75, 0.75]),
        "neg": ["a dog", "a cat"],
        "neg_scores": near([0.25, 0.5]),
        **constants,
    }
    assert second["neg"] == ["a dog", "a cow", "a tiger"]
    assert second["pos_scores"] == near([0.5])


def test_flagembedding_exports_scores_with_a_temperature_or_no_scores(make, tmp_path):
    rows = make(TEXT_ITEMS, TEXT_QUERIES)
    export_flagembedding(rows, tmp_path / "hot.jsonl", teacher_temperature=0.02)
    assert lines(tmp_path / "hot.jsonl")[0]["neg_scores"] == pytest.approx([12.5, 25], abs=1e-4)
    export_flagembedding(rows, tmp_path / "bare.jsonl", scores=False)
    assert set(lines(tmp_path / "bare.jsonl")[0]) == {"query", "pos", "neg"}


def test_flagembedding_leaves_rows_with_images_out(make, tmp_path):
    """This also holds if the image is of an additional positive, and additional positives are exported."""
    text = Triple(
        "q0", "find", judged("i0", 3), [negative("i3", 1)], extra_positives=[judged("i2", 3, Extra)]
    )
    rows = make(triples=[*TRIPLES, text])
    export_flagembedding(rows, tmp_path / "f.jsonl")
    assert [line["pos"] for line in lines(tmp_path / "f.jsonl")] == [["a cat"]]
    assert left_out(rows) == {
        "the row has an image, but FlagEmbedding trains on texts only": (2, "q0")
    }
    with pytest.raises(DataError, match=r"no row can be exported \(the row has an image, .*: 3\)"):
        export_flagembedding(rows, tmp_path / "none.jsonl", extra_positives=True)
    assert not list(tmp_path.glob("none.jsonl*"))


def test_swift(make, tmp_path):
    """Each group of messages has as many images as tags. Candidates are lists of lists."""
    rows = make()
    export_swift(rows, tmp_path / "swift.jsonl")
    a, b = str(tmp_path / "images/a.png"), str(tmp_path / "images/sub/b.png")
    first, second = lines(tmp_path / "swift.jsonl")
    assert first == {
        "messages": [{"role": "user", "content": "find a cat"}],
        "positive_messages": [[{"role": "user", "content": "<image>"}]],
        "negative_messages": [
            [{"role": "user", "content": "a dog"}],
            [{"role": "user", "content": "a cat"}],
        ],
        "images": [],
        "positive_images": [[a]],
        "negative_images": [[], []],
    }
    assert second["messages"] == [{"role": "user", "content": "<image>what is it?\n"}]
    assert second["images"] == [a]
    assert [message["content"] for (message,) in second["negative_messages"]] == [
        "a dog", "<image>the cat of the picture", "<image>",
    ]  # fmt: skip
    assert second["negative_images"] == [[], [b], [a]]


def test_swift_begins_with_rows_that_have_images(make, tmp_path):
    """The loader takes the type of an image list from the first list, and later refuses lists of another type that are
    not empty.
    """
    text = Triple("q0", "find", judged("i0", 3), [negative("i3", 1)])
    rows = make(triples=[text, text, TRIPLES[1]])
    export_swift(rows, tmp_path / "swift.jsonl")
    assert [bool(line["images"]) for line in lines(tmp_path / "swift.jsonl")] == [
        True,
        False,
        False,
    ]
    assert rows.written == 3


def test_swift_texts_have_no_keys_for_images(make, tmp_path):
    export_swift(make(TEXT_ITEMS, TEXT_QUERIES), tmp_path / "swift.jsonl")
    assert set(lines(tmp_path / "swift.jsonl")[0]) == {
        "messages",
        "positive_messages",
        "negative_messages",
    }


def test_a_tag_in_a_text_is_left_out_and_named(make, tmp_path):
    """A reader would take the word for a picture. Only the row with this word is left out."""
    items = [*ITEMS[:2], replace(ITEMS[2], text="say <image> or <|image_1|>"), ITEMS[3]]
    rows = make(items)
    export_swift(rows, tmp_path / "swift.jsonl")
    assert len(lines(tmp_path / "swift.jsonl")) == 1
    assert left_out(rows) == {"a text contains <image> or <video> or <audio>": (1, "q1")}
    rows = TrainingRows(tmp_path / "triples", tmp_path / "corpus")
    export_unime(rows, tmp_path / "unime.json", negatives=3)
    assert left_out(rows) == {"a text contains <|image_1|>": (1, "q1")}


@pytest.mark.parametrize(
    "text", ["https://host/a%20b.JPG?x=1", "http://www.youtube.com/watch?v=1", "data:image/png;,x"]
)
def test_a_text_that_the_library_would_download_is_left_out_and_named(make, tmp_path, text):
    """sentence-transformers would read this text as a picture. A cell with separate fields cannot be misread."""
    rows = make([replace(TEXT_ITEMS[0], text=text), *TEXT_ITEMS[1:]], TEXT_QUERIES)
    with pytest.raises(DataError, match=r"no row can be exported .*a text is the URL of an image"):
        export_sentence_transformers(rows, tmp_path / "st.parquet", negatives=2)


@pytest.mark.parametrize(
    "text", ["https://host/page", "see https://host/a.jpg", "https://host/a.jpg shows it"]
)
def test_a_text_that_contains_a_url_is_kept(make, tmp_path, text):
    rows = make([replace(TEXT_ITEMS[0], text=text), *TEXT_ITEMS[1:]], TEXT_QUERIES)
    export_sentence_transformers(rows, tmp_path / "st.parquet", negatives=2)
    cells = [row.values() for row in pq.read_table(tmp_path / "st.parquet").to_pylist()]
    assert any(text in row for row in cells)


@pytest.mark.parametrize("export", [export_swift, export_flagembedding])
@pytest.mark.parametrize(
    "text", ["2024-01-31", "2024-01-31 10:00", "2024-01-31T10:00:00Z", "2024-01-31T10:00:00+02:00"]
)
def test_a_text_that_a_reader_takes_for_a_time_is_left_out_and_named(make, tmp_path, export, text):
    """Otherwise a trainer would read `2024-01-31 00:00:00` if a block of the file contains only such texts."""
    rows = make([replace(TEXT_ITEMS[0], text=text), *TEXT_ITEMS[1:]], TEXT_QUERIES)
    with pytest.raises(DataError, match=r"no row can be exported .*a text is only a date"):
        export(rows, tmp_path / "rows.jsonl")
    assert [
        time
        for time in ("2024", "2024/01/31", "on 2024-01-31", "2024-01-31 at")
        if TIME.fullmatch(time)
    ] == []


def test_datasets_reads_what_was_exported(make, tmp_path):
    """The JSON reader of the library returns each text unchanged."""
    datasets = pytest.importorskip("datasets")
    texts = ["12:30", "2024", " 2024-01-31", "a\u2028b"]
    rows = make(
        [replace(item, text=text) for item, text in zip(TEXT_ITEMS, texts, strict=True)],
        TEXT_QUERIES,
    )
    export_flagembedding(rows, tmp_path / "rows.jsonl")
    file = str(tmp_path / "rows.jsonl")
    read = datasets.load_dataset(
        "json", data_files=file, split="train", cache_dir=str(tmp_path / "cache")
    )
    assert {text for row in read for text in (*row["pos"], *row["neg"])} <= set(texts)
    assert read.to_list() == [{**line} for line in lines(tmp_path / "rows.jsonl")]


def test_tevatron(make, tmp_path):
    rows = make()
    export_tevatron(rows, tmp_path / "tevatron", extra_positives=True)
    a, b = (
        {"bytes": None, "path": str(tmp_path / "images" / name)} for name in ("a.png", "sub/b.png")
    )
    queries = pq.read_table(tmp_path / "tevatron/queries/train.parquet")
    documents = pq.read_table(tmp_path / "tevatron/corpus/train.parquet")
    assert queries.to_pylist() == [
        {
            "query_id": "q0", "query_text": "find a cat", "query_image": None,
            "positive_document_ids": ["1", "2"], "negative_document_ids": ["3", "0"], "source": "find",
        },
        {
            "query_id": "q1", "query_text": "what is it?\n", "query_image": a,
            "positive_document_ids": ["0"], "negative_document_ids": ["3", "2", "1"], "source": "ask",
        },
    ]  # fmt: skip
    assert documents.to_pylist() == [
        {"docid": "0", "text": "a cat", "image": None, "item_id": "i0"},
        {"docid": "1", "text": "", "image": a, "item_id": "i1"},
        {"docid": "2", "text": "the cat of the picture", "image": b, "item_id": "i2"},
        {"docid": "3", "text": "a dog", "image": None, "item_id": "i3"},
    ]
    for table, column in ((queries, "query_image"), (documents, "image")):
        features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
        assert list(features) == table.column_names
        assert features[column] == {"_type": "Image"}


def test_unime_holds_the_seven_keys_and_every_value(make, tmp_path):
    """Every field is read back: texts without their marker, paths below the root, and scores of the judge."""
    rows = make()
    export_unime(rows, tmp_path / "unime.json", negatives=3)
    objects = json.loads((tmp_path / "unime.json").read_text(encoding="utf-8"))
    contents = {item.item_id: (item.text, item.image) for item in ITEMS}
    assert len(objects) == len(TRIPLES)
    for made, triple, query in zip(objects, TRIPLES, QUERIES, strict=True):
        assert list(made) == [
            "query_text", "query_image", "pos_text", "pos_image", "query_pos_scores", "hard_negatives",
            "hard_negatives_scores",
        ]  # fmt: skip
        assert read_side(made["query_text"], made["query_image"]) == (query.text, query.image)
        assert read_side(made["pos_text"], made["pos_image"]) == contents[triple.positive.item_id]
        assert [read_side(*side) for side in made["hard_negatives"]] == [
            contents[n.item_id] for n in triple.negatives
        ]
        scores = [made["query_pos_scores"], *made["hard_negatives_scores"]]
        odds = [score / (1 - score) for score in scores]
        assert odds == pytest.approx(
            [math.exp(one.log_odds) for one in (triple.positive, *triple.negatives)], rel=1e-5
        )


def read_side(text, image):
    if image:
        assert text.startswith("<|image_1|>\n")
        text = text.removeprefix("<|image_1|>\n")
    return text or None, image or None


def test_a_random_fallback_has_the_papers_score(make, tmp_path):
    row = Triple("q0", "find", judged("i1", 3), [negative("i0", 1, fallback=True)] * 3)
    export_unime(make(triples=[row]), tmp_path / "unime.json", negatives=3)
    assert json.loads((tmp_path / "unime.json").read_text())[0]["hard_negatives_scores"] == [
        1.0,
        1.0,
        1.0,
    ]
