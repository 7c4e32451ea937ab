"""Items that cannot be a wrong answer: the keys and the rows agree for every item, also in unusual corpora."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unijudge.alike import Exclusions, folded, sign_of
from unijudge.formats.corpus import Corpus, Item, Query, write_corpus

TEXTS = [None, "", "a cat", "A  CAT\n", "a dog", "10²", "102", "cafe\u0301", "café"]
PICTURES = [None, "a" * 64, "b" * 64]
CONTENTS = st.tuples(st.sampled_from(TEXTS), st.sampled_from(PICTURES))
ROWS = st.lists(
    st.tuples(CONTENTS, st.sets(st.integers(0, 5), min_size=1, max_size=2)), min_size=1, max_size=6
)


def corpus_of(folder, contents, rows):
    """Items by their contents, and queries with the indexes of their positives."""
    items = [Item(f"i{at}", ("x",), *shown(*content)) for at, content in enumerate(contents)]
    queries = [
        Query(f"q{at}", "x", tuple(f"i{place}" for place in sorted(places)), *shown(*content))
        for at, (content, places) in enumerate(rows)
    ]
    write_corpus(folder, items, queries, images=folder, rejects=0, source="t")
    return Corpus(folder)


def shown(text, picture):
    return text, None if picture is None else f"{picture[0]}.png", picture


def named(corpus, rows):
    return [corpus.items[int(row)].item_id for row in rows]


def test_positives_of_the_question_the_question_itself_and_its_picture(tmp_path):
    """q0 and q1 have the same question. The question of q2 is also an item."""
    contents = [
        ("a cat", None),
        ("A  Cat ", None),
        ("a dog", None),
        (None, "a" * 64),
        ("Who?", None),
        ("10²", None),
    ]
    rows = [
        (("who?", None), {0}),
        (("who? ", None), {2}),
        (("like this", "a" * 64), {2}),
        (("102", None), {3}),
    ]
    corpus = corpus_of(tmp_path, contents, rows)
    exclusions = Exclusions(corpus)
    assert (
        named(corpus, exclusions.rows(0))
        == named(corpus, exclusions.rows(1))
        == ["i0", "i1", "i2", "i4"]
    )
    assert named(corpus, exclusions.rows(2)) == ["i2", "i3"]
    assert named(corpus, exclusions.rows(3)) == ["i3"], "10² is not 102"
    assert exclusions.positives(0).tolist() == [0, 2]
    assert named(corpus, Exclusions(corpus, allow_query_image=True).rows(2)) == ["i2"]
    assert named(corpus, Exclusions(corpus, fold_case=False).rows(0)) == ["i0", "i2"]


@given(
    contents=st.lists(CONTENTS, min_size=6, max_size=6),
    rows=ROWS,
    fold=st.booleans(),
    own=st.booleans(),
)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_rows_and_signs_agree(tmp_path_factory, contents, rows, fold, own):
    corpus = corpus_of(tmp_path_factory.mktemp("c"), contents, rows)
    exclusions = Exclusions(corpus, fold_case=fold, allow_query_image=own)
    for row in range(len(rows)):
        excluded = exclusions.of(row)
        held = [item for item in range(6) if excluded.holds(exclusions.sign(item))]
        assert exclusions.rows(row).tolist() == held
        beside = exclusions.pairs(np.full(6, row), np.arange(6))
        assert np.flatnonzero(beside).tolist() == held
        assert {place for _, places in [rows[row]] for place in places} <= set(held)


@pytest.mark.parametrize("fold", [True, False])
def test_signs_of_contents_are_those_of_items(tmp_path, fold):
    contents = [(text, picture) for text in TEXTS for picture in PICTURES]
    exclusions = Exclusions(corpus_of(tmp_path, contents, [(("q", None), {0})]), fold_case=fold)
    for row, content in enumerate(contents):
        assert exclusions.sign(row) == sign_of(*content, fold_case=fold)


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("10²", "102", False), ("½", "1⁄2", False), ("㎏", "kg", False), ("ﬁne", "fine", True), ("Ⅳ", "IV", False),
        ("Straße", "STRASSE", True), ("cafe\u0301", "CAFÉ", True), (" a\u00a0 cat\n", "A cat", True),
    ],
)  # fmt: skip
def test_only_letter_case_and_whitespace_are_ignored(one, other, is_same):
    """Texts that only look alike stay different: NFKC would turn 10² into `102`.

    (Casefolding itself splits a ligature.)
    """
    assert (folded(one) == folded(other)) is is_same
