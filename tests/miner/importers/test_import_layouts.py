"""Published layouts with little data: accepted rows, rejected rows, and refused files."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from miner.importers.building.build import build
from miner.importers.building.pair import Pair
from miner.importers.building.published_scores import PublishedScores
from miner.importers.karpathy import read_karpathy
from miner.importers.mmeb import read_mmeb_eval
from miner.importers.pairs import read_pairs
from miner.importers.sharegpt4v import read_sharegpt4v
from miner.importers.sugarcrepe import read_sugarcrepe
from miner.importers.urban1k import read_urban1k
from miner.selection.negatives import score_of
from tests.miner.layouts import images_under, take
from tests.pictures import png
from unijudge.errors import DataError, FolderBusy
from unijudge.foreign.cells import Side
from unijudge.formats.scores import read_scores
from unijudge.storage.leases import lease


@pytest.fixture
def images(tmp_path):
    return images_under(tmp_path)


def texts(corpus, query):
    """Texts or image paths of the fixed list of candidates."""
    return [corpus.items[row].text or corpus.items[row].image for row in query.candidates]


def evaluation(images, rows):
    folder = images / "VisDial"
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(rows), folder / "test-00000-of-00001.parquet")


def test_mmeb_eval_has_closed_lists(tmp_path, images):
    ask = {"qry_text": "<|image_1|>\nWhich?\n", "qry_img_path": "a.png"}
    evaluation(
        images,
        [
            {
                **ask,
                "tgt_text": ["seven", "six", "seven ", "one"],
                "tgt_img_path": ["", "", "", ""],
            },
            {
                "qry_text": "find",
                "qry_img_path": "",
                "tgt_text": ["", ""],
                "tgt_img_path": ["b.png", "a.png"],
            },
            {**ask, "tgt_text": ["one", "six"], "tgt_img_path": [""]},
            {**ask, "tgt_text": [], "tgt_img_path": []},
            {**ask, "tgt_text": ["one", " "], "tgt_img_path": ["", ""]},
            {**ask, "tgt_text": ["one", ""], "tgt_img_path": ["", "gone.png"]},
        ],
    )
    corpus, rejects = take(read_mmeb_eval(images), tmp_path, images, max_rejects=0.7)
    first, second = corpus.queries
    assert (first.text, first.image, first.subset) == ("Which?\n", "a.png", "VisDial")
    assert texts(corpus, first) == ["seven", "six", "one"]  # each item is listed once
    assert texts(corpus, second) == ["b.png", "a.png"]
    for query in corpus.queries:
        assert query.positive_ids == (corpus.items[query.candidates[0]].item_id,)
    assert rejects == [
        (
            "VisDial/test-00000-of-00001:3",
            "has 2 target texts and 1 target images, but needs an image for each text",
        ),
        (
            "VisDial/test-00000-of-00001:4",
            "has 0 target texts and 0 target images, but needs an image for each text",
        ),
        ("VisDial/test-00000-of-00001:5", "candidate 2: has neither a text nor an image"),
        ("VisDial/test-00000-of-00001:6", "candidate 2: image gone.png: no such file"),
    ]


def test_mmeb_eval_with_training_columns_is_refused(tmp_path, images):
    evaluation(images, [{"qry": "x", "qry_image_path": "", "pos_text": "y", "pos_image_path": ""}])
    with pytest.raises(DataError, match="has no column 'qry_img_path'"):
        take(read_mmeb_eval(images), tmp_path, images)


def karpathy(tmp_path, images):
    path = tmp_path / "dataset_tiny.json"
    path.write_text(json.dumps({"about": {"images": []}, "images": images, "dataset": "tiny"}))
    return path


def test_karpathy_in_both_directions(tmp_path, images):
    def image(name, split, *captions, **more):
        return {
            "filename": name,
            "split": split,
            "sentences": [{"raw": raw} for raw in captions],
        } | more

    path = karpathy(
        tmp_path,
        [
            image("a.png", "test", "red", "a square", "dropped", filepath="images/CIRR"),
            image("b.png", "test", "green", "a square"),
            image("c.png", "train", "blue"),
            image("gone.png", "test", "away"),
            image("c.png", "test"),
            {"filename": "c.png", "split": "test", "sentences": ["blue"]},
        ],
    )
    corpus, rejects = take(read_karpathy(path, captions=2), tmp_path, images, max_rejects=0.5)
    item = {item.text or item.image: item.item_id for item in corpus.items}
    assert [
        (query.subset, query.text or query.image, query.positive_ids) for query in corpus.queries
    ] == [
        ("tiny_i2t", "images/CIRR/a.png", (item["red"], item["a square"])),
        ("tiny_t2i", "red", (item["images/CIRR/a.png"],)),
        ("tiny_t2i", "a square", (item["images/CIRR/a.png"],)),
        ("tiny_i2t", "b.png", (item["green"], item["a square"])),
        ("tiny_t2i", "green", (item["b.png"],)),
        ("tiny_t2i", "a square", (item["b.png"],)),
    ]
    assert len(corpus.pool_rows("tiny_i2t")) == 3
    assert len(corpus.pool_rows("tiny_t2i")) == 2
    assert rejects == [
        ("dataset_tiny.json:4/image", "query: image gone.png: no such file"),
        ("dataset_tiny.json:4/caption-1", "positive: image gone.png: no such file"),
        (
            "dataset_tiny.json:5/image",
            "has no filename or no sentences, which Karpathy's layout requires",
        ),
        (
            "dataset_tiny.json:6/image",
            "has a sentence without raw text, which Karpathy's layout requires",
        ),
    ]
    with pytest.raises(
        DataError, match=r"no image has the split 'val'\. Give one of the splits test, train"
    ):
        list(read_karpathy(path, split="val"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"pictures": []}', "has no key 'images'"),
        ('{"images": [{"split": "test"}', "broken at row 1"),
        ('{"images": {}}', "expected \\[, found {"),
        ("{1: 2}", "Expecting property name|expected a key"),
        ("{}", "has no key 'images'"),
    ],
)
def test_files_that_are_not_karpathys_are_refused(tmp_path, images, text, reason):
    (tmp_path / "k.json").write_text(text)
    with pytest.raises(DataError, match=reason):
        list(read_karpathy(tmp_path / "k.json"))


def test_sugarcrepe_has_two_candidates_a_query(tmp_path, images):
    folder = tmp_path / "data"
    folder.mkdir()
    good = {"filename": "a.png", "caption": "a red square", "negative_caption": "a blue square"}
    (folder / "replace_att.json").write_text(
        json.dumps({"0": good, "1": {"filename": "a.png", "caption": "x"}})
    )
    (folder / "swap_obj.json").write_text(json.dumps({"0": good | {"filename": "b.png"}}))
    corpus, rejects = take(read_sugarcrepe(folder), tmp_path, images, max_rejects=0.5)
    assert [(query.subset, query.image, texts(corpus, query)) for query in corpus.queries] == [
        ("replace_att", "a.png", ["a red square", "a blue square"]),
        ("swap_obj", "b.png", ["a red square", "a blue square"]),
    ]
    assert {query.positive_ids for query in corpus.queries} == {(corpus.items[0].item_id,)}
    ((row, reason),) = rejects
    assert row == "replace_att.json:1"
    assert reason.startswith("not a row of SugarCrepe")
    (folder / "swap_obj.json").write_text('{"0": ')
    with pytest.raises(DataError, match=r"swap_obj\.json: broken at row 1"):
        take(read_sugarcrepe(folder), tmp_path, images, max_rejects=0.5)
    with pytest.raises(DataError, match="no JSON files"):
        list(read_sugarcrepe(images))


def test_sharegpt4v_takes_the_first_images_with_their_captions(tmp_path, images):
    """As in Long-CLIP, the second turn is the caption, and line breaks become spaces. Later turns are not parsed."""

    def row(image, *values):
        return json.dumps(
            {
                "id": "x",
                "image": image,
                "conversations": [{"from": "?", "value": one} for one in values],
            }
        )

    rows = [
        row("a.png", "Describe.", "A red\nsquare."),
        row("b.png", "Describe."),
        row("gone.png", "?", "x"),
    ]
    path = tmp_path / "share.json"
    path.write_text(f"[{', '.join(rows)}, broken")
    corpus, rejects = take(
        read_sharegpt4v(path, first=3, instruction="Find."), tmp_path, images, max_rejects=0.8
    )
    assert [(query.subset, query.text, query.image) for query in corpus.queries] == [
        ("sharegpt4v_i2t", "Find.", "a.png"),
        ("sharegpt4v_t2i", "A red square.", None),
    ]
    assert [(item.text, item.image) for item in corpus.items] == [
        ("A red square.", None),
        ("Find.", "a.png"),
    ]
    assert rejects == [
        (
            "share.json:2/image",
            "has no image or no caption in its second turn, which ShareGPT4V's layout requires",
        ),
        ("share.json:3/image", "query: image gone.png: no such file"),
        ("share.json:3/caption-1", "positive: image gone.png: no such file"),
    ]
    with pytest.raises(DataError, match=r"share\.json: broken at row 4"):
        list(read_sharegpt4v(path, first=4))


def test_urban1k_pairs_image_and_caption_by_name(tmp_path):
    """As in Long-CLIP, the text is the first line of a caption file, and the image has the same name."""
    for folder in ("image", "caption"):
        (tmp_path / folder).mkdir()
    for name, caption in [
        ("1", "\ufeffA red\u2028street.\nMore.\n"),
        ("2", "\n"),
        ("3", "No image."),
    ]:
        (tmp_path / "caption" / f"{name}.txt").write_text(caption, encoding="utf-8")
    for name in ("1", "2", "4"):
        (tmp_path / "image" / f"{name}.jpg").write_bytes(png())
    corpus, rejects = take(read_urban1k(tmp_path), tmp_path, tmp_path / "image", max_rejects=0.8)
    assert [(query.subset, query.text or query.image) for query in corpus.queries] == [
        ("urban1k_i2t", "1.jpg"),
        ("urban1k_t2i", "A red\u2028street."),
    ]
    assert rejects == [
        ("2.txt/image", "has no caption in its first line"),
        ("3.txt/image", "query: image 3.jpg: no such file"),
        ("3.txt/caption-1", "positive: image 3.jpg: no such file"),
    ]
    with pytest.raises(DataError, match=r"has no caption/\*\.txt\. Give the folder of Urban1K"):
        list(read_urban1k(tmp_path / "image"))


def test_an_import_has_one_writer_and_leaves_no_scratch(tmp_path, images):
    (tmp_path / "p.jsonl").write_text(json.dumps({"query_text": "q", "positive_text": "p"}) + "\n")
    with (
        lease(tmp_path / "corpus"),
        pytest.raises(FolderBusy, match=r"corpus: process [0-9]+ is writing"),
    ):
        take(read_pairs(tmp_path / "p.jsonl"), tmp_path, images)
    (tmp_path / ".corpus.import.unijudge-draft").write_text("what a killed import left")
    corpus, _ = take(read_pairs(tmp_path / "p.jsonl"), tmp_path, images)
    assert len(corpus.queries) == 1
    assert not list(tmp_path.glob("*.unijudge-draft"))
    (tmp_path / ".other.import.unijudge-draft").mkdir()
    with pytest.raises(DataError, match=r"other\.import: cannot be written"):
        build(
            read_pairs(tmp_path / "p.jsonl"),
            images=images,
            out=tmp_path / "other",
            source="t",
            max_rejects=0,
        )


def test_rows_of_one_query_are_joined(tmp_path, images):
    """The positive of the first row is a negative of a later row. It stays a positive, with its first score."""
    one, two, three = (Side(text, None) for text in ("one", "two", "three"))
    low = (0.25, 0.25, 0.25)
    rows = [
        Pair(
            "a:1",
            "s",
            Side("q", None),
            one,
            "q",
            negatives=(two,),
            candidates=(one, two),
            scores=(0.75, 0.5),
        ),
        Pair(
            "a:2",
            "s",
            Side("q ", None),
            two,
            "q",
            negatives=(one, three),
            candidates=(two, three),
            scores=(0.25,) * 3,
        ),
        Pair("a:3", "s", Side("another", None), two, "q", scores=low[:1]),
    ]
    corpus, rejects = take(
        iter(rows), tmp_path, images, 0.4, PublishedScores(tmp_path / "scores", images / "a.png")
    )
    assert rejects == [
        ("a:3", "query_id 'q' is already the id of a different query. Ids must be unique")
    ]
    (query,) = corpus.queries
    ids = [item.item_id for item in corpus.items]
    assert [item.text for item in corpus.items] == ["one", "two", "three"]
    assert query.positive_ids == (ids[0], ids[1])
    assert query.candidates == (0, 1, 2)
    (row,) = read_scores(tmp_path / "scores")
    assert [(one.item_id, round(score_of(one), 6)) for one in row.positives] == [
        (ids[0], 0.75),
        (ids[1], 0.5),
    ]
    assert [(one.item_id, round(score_of(one), 6)) for one in row.candidates] == [(ids[2], 0.25)]


def test_the_reason_of_a_rejected_row_is_valid_utf8(tmp_path, images):
    rows = [
        {"query_text": "q", "positive_text": "p", "query_id": "\ud83d"},
        {"query_text": "q", "positive_text": "p", "subset": "\udc00 ünï"},
        {"query_text": "q", "positive_text": "p"},
    ]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    corpus, rejects = take(read_pairs(tmp_path / "p.jsonl"), tmp_path, images, max_rejects=0.7)
    assert len(corpus.queries) == 1
    assert [reason for _, reason in rejects] == [
        "query_id: a lone surrogate or a NUL in '\\ud83d'",
        "subset: a lone surrogate or a NUL in '\\udc00 ünï'",
    ]
