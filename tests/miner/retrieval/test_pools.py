"""Which items may be candidates of a query, by their content."""

import numpy as np
import pytest

from miner.retrieval.pools import Pools, repeated_questions
from unijudge.formats.corpus import Corpus, Item, Query, write_corpus

A, B = "a" * 64, "b" * 64  # hashes of two pictures


@pytest.fixture
def corpus(tmp_path):
    items = [
        Item("cat", ("x",), text="A cat."),
        Item("CAT", ("y",), text=" a  CAT.\n"),
        Item("dog", ("x", "y"), text="a dog"),
        Item("pic", ("y",), image="a.png", image_sha256=A),
        Item("both", ("y",), text="a cat.", image="a.png", image_sha256=A),
        Item("other", ("y",), image="b.png", image_sha256=B),
        Item("copy", ("x",), image="copy-of-b.png", image_sha256=B),
    ]
    queries = [
        Query("q0", "x", ("cat",), text="which animal?"),
        Query("q1", "y", ("dog",), text="which animal? "),
        Query("q2", "y", ("other",), text="like this one", image="a.png", image_sha256=A),
    ]
    write_corpus(tmp_path / "c", items, queries, images=tmp_path, rejects=0, source="t")
    return Corpus(tmp_path / "c")


def names(corpus, rows):
    return [corpus.items[int(row)].item_id for row in rows]


def test_a_blank_text_does_not_change_the_modality_of_a_picture(tmp_path):
    """If the text beside a picture is blank, the judge reads only the picture."""
    items = [
        Item("one", ("x",), text="\n", image="a.png", image_sha256=A),
        Item("two", ("x",), image="b.png", image_sha256=B),
    ]
    queries = [
        Query(f"q{number}", "x", (item.item_id,), text=f"{number}")
        for number, item in enumerate(items)
    ]
    write_corpus(tmp_path / "c", items, queries, images=tmp_path, rejects=0, source="t")
    pools = Pools(Corpus(tmp_path / "c"), "modality")
    assert pools.name(0) == pools.name(1)
    assert pools.rows(0).tolist() == [0, 1]


def test_each_content_is_in_a_pool_once(corpus):
    assert names(corpus, Pools(corpus, "global").rows(0)) == ["cat", "dog", "pic", "both", "other"]
    assert names(corpus, Pools(corpus, "global", fold_case=False).rows(0)) == [
        "cat", "CAT", "dog", "pic", "both", "other",
    ]  # fmt: skip


def test_each_subset_has_a_separate_pool(corpus):
    pools = Pools(corpus, "subset")
    assert names(corpus, pools.rows(0)) == ["cat", "dog", "copy"]
    assert names(corpus, pools.rows(1)) == ["CAT", "dog", "pic", "both", "other"]


def test_a_pool_of_the_positives_kind(corpus):
    pools = Pools(corpus, "modality")
    assert names(corpus, pools.rows(0)) == ["cat", "dog"]
    assert names(corpus, pools.rows(2)) == ["pic", "other"]


def test_positives_of_the_question_are_excluded_in_every_spelling(corpus):
    """q0 and q1 have the same question, so they share their positives."""
    pools = Pools(corpus, "global")
    assert (
        names(corpus, pools.excluded(0))
        == names(corpus, pools.excluded(1))
        == ["cat", "CAT", "dog"]
    )


def test_rows_have_the_same_question_only_if_the_judge_reads_the_same_content(tmp_path):
    items = [Item("cat", ("x",), text="a cat")]
    asked = [
        Query(f"q{n}", "x", ("cat",), text=text)
        for n, text in enumerate(["which?", "which? ", "which?"])
    ]
    write_corpus(tmp_path / "c", items, asked, images=tmp_path, rejects=0, source="t")
    corpus = Corpus(tmp_path / "c")
    assert repeated_questions(corpus) == {asked[0].key: 2}
    assert repeated_questions(corpus, [1, 2]) == {}


def test_the_querys_own_picture_is_excluded_under_any_name_unless_it_is_allowed(corpus):
    assert names(corpus, Pools(corpus, "global").excluded(2)) == ["pic", "both", "other", "copy"]
    assert names(corpus, Pools(corpus, "global", allow_query_image=True).excluded(2)) == [
        "other",
        "copy",
    ]


def test_excluded_rows_ascend(corpus):
    for row in range(3):
        assert (np.diff(Pools(corpus, "global").excluded(row)) > 0).all()
