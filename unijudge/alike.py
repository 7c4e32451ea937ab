"""The items that are never a wrong answer to a question.

Candidates, in-batch negatives and evaluation follow the same rule. Three kinds of items are excluded: duplicates of a
positive of the question (from any row with the same question), duplicates of the question itself, and items with the
question's picture. Texts that differ only in case or whitespace count as duplicates.
"""

import hashlib
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, TypeVar

import numpy as np

from unijudge.formats.corpus import Corpus
from unijudge.formats.lazy_table import Rows, values_of
from unijudge.groups import Bools, Groups, Hashes, among

NO_PICTURE = 0
T = TypeVar("T")


class Sign(NamedTuple):
    """The two hashes by which duplicates of a content are found."""

    content: int
    """The hash of the text (ignoring case and whitespace) and the picture."""
    picture: int
    """The hash of the picture alone; `NO_PICTURE` without a picture."""


@dataclass(frozen=True)
class Excluded:
    """The contents that are never a wrong answer to a question."""

    contents: frozenset[int]
    picture: int = NO_PICTURE
    """The hash of the question's picture; `NO_PICTURE` without a picture, or if this picture may be a wrong answer."""

    def holds(self, sign: Sign) -> bool:
        """Whether a content is excluded.

        Example:
            >>> same = Excluded(frozenset([sign_of("a  Cat", None).content]))
            >>> same.holds(sign_of("A cat", None)), same.holds(sign_of("a cat", "aa"))
            (True, False)
        """
        return self.says(sign) or self.shows(sign)

    def says(self, sign: Sign) -> bool:
        """Whether a content is a duplicate of a positive or of the question itself."""
        return sign.content in self.contents

    def shows(self, sign: Sign) -> bool:
        """Whether a content has the question's picture."""
        return sign.picture == self.picture != NO_PICTURE

    def and_contents(self, contents: Iterable[int]) -> "Excluded":
        """Returns a copy with more contents."""
        return replace(self, contents=self.contents.union(contents))


class Exclusions:
    """The rule for the questions and the items of a corpus."""

    def __init__(self, corpus: Corpus, *, fold_case: bool = True, allow_query_image: bool = False):
        """Hashes every item once.

        Args:
            corpus: The corpus with the items and the queries.
            fold_case: Whether texts that differ only in case or inner whitespace are duplicates. Outer whitespace is
                always ignored.
            allow_query_image: Whether items with the query's own picture may be wrong answers.
        """
        self._corpus = corpus
        self._fold_case = fold_case
        self._allow_query_image = allow_query_image
        items = corpus.items.table
        pairs = zip(values_of(items["text"]), values_of(items["image_sha256"]), strict=True)
        self.contents = np.fromiter(
            (_content(*pair, fold_case=fold_case) for pair in pairs), np.int64
        )
        """The hash of each item's content."""
        self._pictures = np.fromiter(map(_picture, values_of(items["image_sha256"])), np.int64)
        # Caches only for questions of several rows: all entries together are not larger than the corpus.
        self._of_repeated: dict[int, Excluded] = {}
        self._positives_of_repeated: dict[int, Rows] = {}
        self._rows_of_repeated: dict[int, Rows] = {}

    def sign(self, item: int) -> Sign:
        """Returns the hashes of an item row."""
        return Sign(int(self.contents[item]), int(self._pictures[item]))

    def same_question(self, query: int) -> Rows:
        """Returns the query rows with the question of `query`, including `query`, in ascending order."""
        return self._questions.equal_to(query)

    def is_repeated(self, query: int) -> bool:
        """Whether several rows have the question of `query`."""
        return self._questions.count(query) > 1

    def positives(self, query: int) -> Rows:
        """Returns the ascending item rows of the positives of all rows with the question of `query`."""

        def made() -> Rows:
            same = self.same_question(query).tolist()
            positives = [self._corpus.positives(other) for other in same]
            return np.unique(np.concatenate(positives))

        return self._once(self._positives_of_repeated, query, made)

    def of(self, query: int) -> Excluded:
        """Returns the contents that are never a wrong answer to the question of a query row."""

        def made() -> Excluded:
            asked = self._corpus.queries.table
            text = asked["text"][query].as_py()
            picture = asked["image_sha256"][query].as_py()
            own = _content(text, picture, fold_case=self._fold_case)
            right_answers = self.contents[self.positives(query)].tolist()
            own_picture = NO_PICTURE if self._allow_query_image else _picture(picture)
            return Excluded(frozenset([own, *right_answers]), own_picture)

        return self._once(self._of_repeated, query, made)

    def rows(self, query: int) -> Rows:
        """Returns the ascending rows of the items that `of` excludes."""

        def made() -> Rows:
            excluded = self.of(query)
            found = self._by_content.any_of(np.fromiter(excluded.contents, np.int64))
            if excluded.picture == NO_PICTURE:
                return found
            return np.union1d(found, self._by_picture.any_of(np.array([excluded.picture])))

        return self._once(self._rows_of_repeated, query, made)

    def _once(self, kept: dict[int, T], query: int, make: Callable[[], T]) -> T:
        """Returns the result of `make` for a query's question, computed once for all rows with this question."""
        if not self.is_repeated(query):
            return make()
        question = self.question(query)
        if question not in kept:
            kept[question] = make()
        return kept[question]

    def question(self, query: int) -> int:
        """Returns the hash of a query row's question, which rows with the same question share."""
        return int(self._questions.hashes[query])

    def pairs(self, queries: Rows, items: Rows) -> Bools:
        """Returns, for each query row and the item row at the same index, whether `rows` of the query has the item."""
        numbers, places = self._numbered
        codes = numbers[queries] * len(self.contents) + places[items]
        pictures = self._question_pictures[queries]
        return among(codes, self._known_codes) | (
            (pictures == self._pictures[items]) & (pictures != NO_PICTURE)
        )

    @property
    def content_numbers(self) -> Rows:
        """Returns the number of each item's content. Duplicates share a number, which is below the number of items."""
        return self._numbered[1]

    @cached_property
    def _numbered(self) -> tuple[Rows, Rows]:
        """Returns the number of each query's question, and the number of each item's content."""
        questions = np.unique(self._questions.hashes, return_inverse=True)[1]
        contents = np.unique(self.contents, return_inverse=True)[1]
        return questions.astype(np.int64), contents.astype(np.int64)

    @cached_property
    def _known_codes(self) -> Rows:
        """Returns the ascending codes (question × content) of all exclusions, except the exclusions by picture."""
        numbers, places = self._numbered
        queries, items = self._corpus.labelled
        labelled = numbers[queries] * len(self.contents) + places[items]

        # A duplicate of a question itself is found by their common hash.
        sorted_contents, first = np.unique(self.contents, return_index=True)
        own = among(self._questions.hashes, sorted_contents)
        found = first[np.searchsorted(sorted_contents, self._questions.hashes[own])]
        return np.unique(
            np.concatenate([labelled, numbers[own] * len(self.contents) + places[found]])
        )

    @cached_property
    def _question_pictures(self) -> Hashes:
        """Returns the hash of each query's picture; `NO_PICTURE` if this picture may be a wrong answer."""
        pictures = np.fromiter(
            map(_picture, values_of(self._corpus.queries.table["image_sha256"])), np.int64
        )
        return np.full_like(pictures, NO_PICTURE) if self._allow_query_image else pictures

    @cached_property
    def _questions(self) -> Groups:
        asked = self._corpus.queries.table
        pairs = zip(values_of(asked["text"]), values_of(asked["image_sha256"]), strict=True)
        return Groups(
            np.fromiter((_content(*pair, fold_case=self._fold_case) for pair in pairs), np.int64)
        )

    @cached_property
    def _by_content(self) -> Groups:
        return Groups(self.contents)

    @cached_property
    def _by_picture(self) -> Groups:
        return Groups(self._pictures)


def sign_of(text: str | None, image_sha256: str | None, *, fold_case: bool = True) -> Sign:
    """Returns the hashes of any content."""
    return Sign(_content(text, image_sha256, fold_case=fold_case), _picture(image_sha256))


def folded(text: str | None) -> str:
    r"""Returns a text in NFC, case-folded, with single spaces for whitespace.

    Example:
        >>> folded(" Director  and Executive SECRETARY\n") == folded("director and executive secretary")
        True
        >>> folded("10²") == folded("102")
        False
    """
    return " ".join(unicodedata.normalize("NFC", text or "").casefold().split())


def normal(text: str | None) -> str:
    r"""Returns a text in NFC without outer whitespace. An import merges entries that are equal in this form.

    The first text of such entries is stored, judged and embedded unchanged.

    Example:
        >>> normal("a cat\n") == normal("a cat")
        True
    """
    return unicodedata.normalize("NFC", text or "").strip()


def _content(text: str | None, image_sha256: str | None, *, fold_case: bool) -> int:
    known_as = folded(text) if fold_case else normal(text)
    return _hash(f"{known_as}\0{image_sha256 or ''}")


def _picture(image_sha256: str | None) -> int:
    return _hash(image_sha256) if image_sha256 else NO_PICTURE


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), signed=True)
