"""Labelled pairs are read from three layouts.

Every fault stops the reading with an error that names its place and its cure.
"""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from judge_service.bench.pairs import LabelledPair, read_labelled, sampled
from unijudge.errors import DataError
from unijudge.foreign.cells import Side

MATCH = {"query_text": "a cat", "candidate_text": "cat", "label": 1}
OTHER = {
    "query_text": "a cat",
    "candidate_text": "dog",
    "label": 0,
    "kind": "swap",
    "subset": "pets",
}
CAPTIONS = {
    "0": {"filename": "1.jpg", "caption": "a red cat", "negative_caption": "a blue cat"},
    "1": {"filename": "2.jpg", "caption": "two dogs", "negative_caption": "two cats"},
}


def lines(path, *rows, before=""):
    path.write_text(before + "".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("before", ["", "\ufeff"])
def test_pairs_of_json_lines(tmp_path, before):
    path = lines(tmp_path / "val.jsonl", MATCH, OTHER, MATCH, before=before)
    assert read_labelled([path]) == [
        LabelledPair(
            "val.jsonl:1", "val", None, Side("a cat", None), Side("cat", None), match=True
        ),
        LabelledPair(
            "val.jsonl:2", "pets", "swap", Side("a cat", None), Side("dog", None), match=False
        ),
    ], "the third row is the first again"


@pytest.mark.parametrize(
    ("yes", "no"), [(1, 0), (1.0, 0.0), (True, False), ("1", "0"), ("True", "false")]
)
def test_every_form_of_a_label_is_read(tmp_path, yes, no):
    path = tmp_path / "a.parquet"
    columns = {
        "query_image": ["q.png"] * 2,
        "candidate_image": ["a.png", "b.png"],
        "label": [yes, no],
    }
    pq.write_table(pa.table(columns), path)
    pairs = read_labelled([path])
    assert [pair.match for pair in pairs] == [True, False]
    assert pairs[1].candidate == Side(None, "b.png")


def test_pictures_inside_of_rows(tmp_path):
    picture = {"bytes": b"\x89PNG", "path": None}
    rows = [
        {"query_text": "a", "candidate_image": picture, "label": 1},
        {"query_text": "b", "candidate_image": picture, "label": 0},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert read_labelled([tmp_path / "a.parquet"])[0].candidate == Side(None, b"\x89PNG")


def test_rows_of_mmeb_with_their_negatives(tmp_path):
    folder = tmp_path / "CIRR"
    folder.mkdir()
    rows = [
        {"qry": "<|image_1|>\nFind it.", "qry_image_path": "q.jpg", "pos_text": "", "pos_image_path": "p.jpg",
         "neg_text": "", "neg_image_path": "n.jpg"},
        {"qry": "Where?", "qry_image_path": "", "pos_text": "here", "pos_image_path": "",
         "neg_text": None, "neg_image_path": ""},
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), folder / "original-00000-of-00001.parquet")
    pairs = read_labelled([folder])
    query = Side("Find it.", "q.jpg")
    assert [(pair.query, pair.candidate, pair.match) for pair in pairs] == [
        (query, Side(None, "p.jpg"), True),
        (query, Side(None, "n.jpg"), False),
        (Side("Where?", None), Side("here", None), True),
    ], "the second row's negative is empty"
    assert {pair.subset for pair in pairs} == {"CIRR"}


def test_places_distinguish_files_with_equal_names(tmp_path):
    for subset in ("a", "b"):
        (tmp_path / subset).mkdir()
        lines(
            tmp_path / subset / "val.jsonl",
            {**MATCH, "query_text": subset},
            {**OTHER, "query_text": subset},
        )
    places = [pair.place for pair in read_labelled([tmp_path])]
    assert places == ["a/val.jsonl:1", "a/val.jsonl:2", "b/val.jsonl:1", "b/val.jsonl:2"]


def test_negatives_of_mmeb_in_lists_and_in_numbered_columns(tmp_path):
    row = {
        "qry": "q", "qry_image_path": None, "pos_text": "p", "pos_image_path": None,
        "neg_text": ["a", "b"], "neg_image_path": [None, "b.png"], "neg_text_2": "c",
    }  # fmt: skip
    pairs = read_labelled([lines(tmp_path / "rows.jsonl", row)])
    assert [pair.candidate for pair in pairs if not pair.match] == [
        Side("a", None), Side("b", "b.png"), Side("c", None)
    ]  # fmt: skip
    assert {pair.subset for pair in pairs} == {"rows"}


@pytest.mark.parametrize("indent", [None, 2])
def test_sugarcrepe_as_it_is_published(tmp_path, indent):
    path = tmp_path / "swap_att.json"
    path.write_text(json.dumps(CAPTIONS, indent=indent))
    pairs = read_labelled([path], instruction="Describe it.")
    assert [(pair.kind, pair.candidate.text, pair.match) for pair in pairs] == [
        (None, "a red cat", True), ("swap_att", "a blue cat", False),
        (None, "two dogs", True), ("swap_att", "two cats", False),
    ]  # fmt: skip
    assert pairs[0].query == Side("Describe it.", "1.jpg")
    assert {pair.subset for pair in pairs} == {"sugarcrepe"}


def test_files_of_several_layouts_are_guessed_one_by_one(tmp_path):
    (tmp_path / "add_obj.json").write_text(json.dumps(CAPTIONS))
    lines(tmp_path / "pairs.jsonl", MATCH, OTHER)
    assert {pair.subset for pair in read_labelled([tmp_path])} == {"sugarcrepe", "pairs", "pets"}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "val.jsonl: has no rows. Give a file of labelled pairs"),
        ([{"query_text": "a", "candidate_text": "b"}], "val.jsonl: has no column 'label'. Add this column: 1 if"),
        ([MATCH, {**OTHER, "label": float("nan")}], "val.jsonl:2: label nan is neither 1 (a match) nor 0. Correct"),
        ([MATCH, {**OTHER, "label": None}], "val.jsonl:2: label None is neither 1"),
        ([MATCH, {**OTHER, "label": 0.5}], "val.jsonl:2: label 0.5 is neither 1"),
        ([MATCH, {**MATCH, "label": 0}], "val.jsonl:2 and val.jsonl:1 have the same pair with different labels"),
        ([MATCH], "val.jsonl: all 1 pairs match, so ROC-AUC is undefined. Add pairs that do not match"),
        ([OTHER], "val.jsonl: none of 1 pairs matches, so ROC-AUC is undefined. Add pairs that match"),
        ([MATCH, {**OTHER, "candidate_text": " "}], "val.jsonl:2: the candidate has neither a text nor a picture."),
        ([MATCH, {**OTHER, "candidate_text": "a\ud800"}], "val.jsonl:2: the candidate: a lone surrogate or a NUL in"),
        ([MATCH, {**OTHER, "kind": "a\0"}], "val.jsonl:2: kind: a lone surrogate or a NUL in"),
        ([MATCH, {**OTHER, "query_text": 7.5}], "val.jsonl:2: 7.5 is not a text. Correct the row or remove it"),
        ([{"image": "a.png", "text": "b"}], "val.jsonl: unknown layout (image, text). Use the columns of"),
    ],
)  # fmt: skip
def test_pairs_that_cannot_be_measured_are_named(tmp_path, rows, message):
    with pytest.raises(DataError) as error:
        read_labelled([lines(tmp_path / "val.jsonl", *rows)])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_and_truncated_files(tmp_path):
    with pytest.raises(DataError, match=r"none.json: no such file"):
        read_labelled([tmp_path / "none.json"])
    (tmp_path / "swap_obj.json").write_text(json.dumps(CAPTIONS)[:-30])
    with pytest.raises(DataError, match="broken at row 2"):
        read_labelled([tmp_path / "swap_obj.json"])
    broken = {"0": CAPTIONS["0"], "1": {"filename": "2.jpg", "caption": "two dogs"}}
    (tmp_path / "swap_obj.json").write_text(json.dumps(broken))
    with pytest.raises(DataError, match=r"swap_obj.json:1: not a row of SugarCrepe"):
        read_labelled([tmp_path / "swap_obj.json"])


def test_a_layout_that_is_given_is_not_guessed(tmp_path):
    path = lines(tmp_path / "val.jsonl", MATCH, OTHER)
    with pytest.raises(DataError, match=r"val.jsonl: none of its columns is known"):
        read_labelled([path], "mmeb")


def test_queries_are_drawn_from_each_subset_with_all_of_their_pairs(tmp_path):
    rows = [
        {
            "query_text": f"{query}",
            "candidate_text": f"{candidate}",
            "label": int(not candidate),
            "subset": subset,
        }
        for subset, count in (("x", 20), ("y", 2))
        for query in range(count)
        for candidate in range(3)
    ]
    pairs = read_labelled([lines(tmp_path / "val.jsonl", *rows)])
    some = sampled(pairs, 4, seed=1)
    assert [pair.subset for pair in some] == ["x"] * 12 + ["y"] * 6
    assert sum(pair.match for pair in some) == 6
    assert some == [pair for pair in pairs if pair in some], "in their order"
    assert some == sampled(pairs, 4, seed=1) != sampled(pairs, 4, seed=2)
