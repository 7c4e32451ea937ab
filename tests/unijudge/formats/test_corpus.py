"""A corpus is checked when it is opened: every item that it refers to exists."""

import pytest

from unijudge.errors import DataError
from unijudge.formats.corpus import Corpus, Item, Query, write_corpus

ITEMS = [Item(name, ("s",), name) for name in "abc"]


def opened(tmp_path, *queries):
    write_corpus(tmp_path / "corpus", ITEMS, queries, images=tmp_path, rejects=0, source="t")
    return Corpus(tmp_path / "corpus")


@pytest.mark.parametrize(("closed", "row"), [((0, -1), -1), ((0, 3), 3), ((2, None), None)])
def test_a_closed_list_names_rows_of_items(tmp_path, closed, row):
    """−1 would mean the last item.

    A row number that is too large would raise an IndexError in the middle of an evaluation.
    """
    good = Query("good", "s", ("a",), "x", candidates=(0, 2))
    assert opened(tmp_path, good, Query("open", "s", ("b",), "y")).queries[0].candidates == (0, 2)
    with pytest.raises(
        DataError,
        match=rf"corpus: query 'bad': its closed list names item row {row}, but the corpus",
    ):
        opened(
            tmp_path,
            good,
            Query("open", "s", ("b",), "y"),
            Query("bad", "s", ("a",), "z", candidates=closed),
        )


def test_a_query_without_a_positive_is_named(tmp_path):
    with pytest.raises(
        DataError, match=r"corpus: query 'bad' has no positive. Import again, or leave that row out"
    ):
        opened(
            tmp_path,
            Query("good", "s", ("a",), "x"),
            Query("bad", "s", (), "y"),
            Query("next", "s", ("b",), "z"),
        )


def test_a_negative_row_number_is_refused(tmp_path):
    corpus = opened(tmp_path, Query("q", "s", ("a",), "x"))
    for row in (-1, 3):
        with pytest.raises(IndexError):
            corpus.items[row]
    assert [item.item_id for item in corpus.items[1:]] == ["b", "c"]


@pytest.mark.parametrize(
    "text",
    ['{"images": []}', "[]", "no JSON", '{"files": {"a": 1}}', '{"files": "corpus/corpus.json"}'],
)
def test_a_file_that_happens_to_be_called_dataset_makes_no_dataset(tmp_path, text):
    """Karpathy's splits of Flickr30K are in a file dataset.json, and a corpus may be beside this file."""
    (tmp_path / "dataset.json").write_text(text)
    assert opened(tmp_path, Query("q", "s", ("a",), "x")).images == tmp_path
    (tmp_path / "dataset.json").write_text(
        '{"files": {"corpus/corpus.json": {"size": 1, "sha256": "0"}}}'
    )
    with pytest.raises(DataError, match="is part of a dataset, whose images are in"):
        Corpus(tmp_path / "corpus")
