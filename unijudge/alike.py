"""What can be no wrong answer to a question: one rule for candidates, for negatives in a batch, and for evaluation.

A content that says the same as a positive of the question (of any row that asks it) can be none; nor can one that says
the same as the question itself, or shows its picture. Texts that differ in letter case or blanks alone say the same.
"""

import hashlib
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, TypeVar

import numpy as np

from unijudge.formats.corpus import Corpus
from unijudge.formats.groups import Bools, Groups, Hashes, among
from unijudge.formats.lazy_table import Rows, values_of

NO_PICTURE = 0
T = TypeVar("T")


class Sign(NamedTuple):
    """By what a content is known among its like: two hashes."""

    content: int
    """Of its text, letter case and blanks aside, and its picture."""
    picture: int
    """Of its picture alone; `NO_PICTURE` without one."""


@dataclass(frozen=True)
class Excluded:
    """What can be no wrong answer to one question."""

    contents: frozenset[int]
    picture: int = NO_PICTURE
    """Of the question; `NO_PICTURE` where it has none, or where its picture may be a wrong answer."""

    def holds(self, sign: Sign) -> bool:
        """Whether a content is among it.

        Example:
            >>> same = Excluded(frozenset([sign_of("a  Cat", None).content]))
            >>> same.holds(sign_of("A cat", None)), same.holds(sign_of("a cat", "aa"))
            (True, False)
        """
        return self.says(sign) or self.shows(sign)

    def says(self, sign: Sign) -> bool:
        """Whether a content says what a positive or the question itself says."""
        return sign.content in self.contents

    def shows(self, sign: Sign) -> bool:
        """Whether a content shows the question's picture."""
        return sign.picture == self.picture != NO_PICTURE

    def and_contents(self, contents: Iterable[int]) -> "Excluded":
        """The same, and more contents."""
        return replace(self, contents=self.contents.union(contents))


class Exclusions:
    """The rule, for the questions and the items of one corpus."""

    def __init__(self, corpus: Corpus, *, fold_case: bool = True, allow_query_image: bool = False):
        """Hashes every item once.

        Args:
            corpus: Items and queries.
            fold_case: Whether texts that differ in letter case or blanks alone are the same; outer blanks never count.
            allow_query_image: Whether items that show the query's own picture may be wrong answers.
        """
        self._corpus = corpus
        self._fold_case = fold_case
        self._allow_query_image = allow_query_image
        items = corpus.items.table
        pairs = zip(values_of(items["text"]), values_of(items["image_sha256"]), strict=True)
        self.contents = np.fromiter((_content(*pair, fold_case=fold_case) for pair in pairs), np.int64)
        """Of each item, the hash of what it says."""
        self._pictures = np.fromiter(map(_picture, values_of(items["image_sha256"])), np.int64)
        # What is known of a question that several rows ask: together no larger than the corpus.
        self._of_repeated: dict[int, Excluded] = {}
        self._positives_of_repeated: dict[int, Rows] = {}
        self._rows_of_repeated: dict[int, Rows] = {}

    def sign(self, item: int) -> Sign:
        """Of an item, by its row."""
        return Sign(int(self.contents[item]), int(self._pictures[item]))

    def same_question(self, query: int) -> Rows:
        """The query rows that ask the same as one, itself among them; ascending."""
        return self._questions.equal_to(query)

    def is_repeated(self, query: int) -> bool:
        """Whether several rows ask the question of this one."""
        return self._questions.count(query) > 1

    def positives(self, query: int) -> Rows:
        """The item rows of the positives of all rows that ask the same as one; ascending."""

        def made() -> Rows:
            same = self.same_question(query)
            return np.unique(np.concatenate([self._corpus.positives(int(other)) for other in same]))

        return self._once(self._positives_of_repeated, query, made)

    def of(self, query: int) -> Excluded:
        """What can be no wrong answer to a query's question, by the query's row."""

        def made() -> Excluded:
            asked = self._corpus.queries.table
            text, picture = (asked[name][query].as_py() for name in ("text", "image_sha256"))
            own = _content(text, picture, fold_case=self._fold_case)
            known = frozenset([own, *self.contents[self.positives(query)].tolist()])
            return Excluded(known, NO_PICTURE if self._allow_query_image else _picture(picture))

        return self._once(self._of_repeated, query, made)

    def rows(self, query: int) -> Rows:
        """The item rows that `of` holds, ascending."""

        def made() -> Rows:
            excluded = self.of(query)
            found = self._by_content.any_of(np.fromiter(excluded.contents, np.int64))
            if excluded.picture == NO_PICTURE:
                return found
            return np.union1d(found, self._by_picture.any_of(np.array([excluded.picture])))

        return self._once(self._rows_of_repeated, query, made)

    def _once(self, kept: dict[int, T], query: int, make: Callable[[], T]) -> T:
        """What `make` makes for a query's question, once for all rows that ask it."""
        if not self.is_repeated(query):
            return make()
        question = self.question(query)
        if question not in kept:
            kept[question] = make()
        return kept[question]

    def question(self, query: int) -> int:
        """What rows that ask the same have in common, by the query's row."""
        return int(self._questions.hashes[query])

    def pairs(self, queries: Rows, items: Rows) -> Bools:
        """Of each query and the item beside it, by their rows: whether `rows` of the query has the item."""
        numbers, places = self._numbered
        codes = numbers[queries] * len(self.contents) + places[items]
        pictures = self._question_pictures[queries]
        return among(codes, self._known_codes) | ((pictures == self._pictures[items]) & (pictures != NO_PICTURE))

    @property
    def content_numbers(self) -> Rows:
        """Of each item the number of its content: smaller than the number of items, and shared by items alike."""
        return self._numbered[1]

    @cached_property
    def _numbered(self) -> tuple[Rows, Rows]:
        """Of each query the number of its question, of each item the number of its content."""
        questions = np.unique(self._questions.hashes, return_inverse=True)[1]
        contents = np.unique(self.contents, return_inverse=True)[1]
        return questions.astype(np.int64), contents.astype(np.int64)

    @cached_property
    def _known_codes(self) -> Rows:
        """Question × content, as one number, of all that can be no wrong answer but for its picture; ascending."""
        numbers, places = self._numbered
        queries, items = self._corpus.labelled
        labelled = numbers[queries] * len(self.contents) + places[items]

        # An item that says what a question says is found by the hash that both have.
        sorted_contents, first = np.unique(self.contents, return_index=True)
        own = among(self._questions.hashes, sorted_contents)
        found = first[np.searchsorted(sorted_contents, self._questions.hashes[own])]
        return np.unique(np.concatenate([labelled, numbers[own] * len(self.contents) + places[found]]))

    @cached_property
    def _question_pictures(self) -> Hashes:
        """Of each query, the hash of its picture; `NO_PICTURE` where that may be a wrong answer."""
        pictures = np.fromiter(map(_picture, values_of(self._corpus.queries.table["image_sha256"])), np.int64)
        return np.full_like(pictures, NO_PICTURE) if self._allow_query_image else pictures

    @cached_property
    def _questions(self) -> Groups:
        asked = self._corpus.queries.table
        pairs = zip(values_of(asked["text"]), values_of(asked["image_sha256"]), strict=True)
        return Groups(np.fromiter((_content(*pair, fold_case=self._fold_case) for pair in pairs), np.int64))

    @cached_property
    def _by_content(self) -> Groups:
        return Groups(self.contents)

    @cached_property
    def _by_picture(self) -> Groups:
        return Groups(self._pictures)


def sign_of(text: str | None, image_sha256: str | None, *, fold_case: bool = True) -> Sign:
    """Of any content."""
    return Sign(_content(text, image_sha256, fold_case=fold_case), _picture(image_sha256))


def folded(text: str | None) -> str:
    r"""What of a text counts: one letter case, single blanks.

    Example:
        >>> folded(" Director  and Executive SECRETARY\n") == folded("director and executive secretary")
        True
        >>> folded("10²") == folded("102")
        False
    """
    return " ".join(unicodedata.normalize("NFC", text or "").casefold().split())


def normal(text: str | None) -> str:
    r"""A text in NFC without outer blanks: an import joins entries that differ in nothing else.

    What is stored, judged and embedded is the text that came first, to the letter.

    Example:
        >>> normal("a cat\n") == normal("a cat")
        True
    """
    return unicodedata.normalize("NFC", text or "").strip()


def _content(text: str | None, image_sha256: str | None, *, fold_case: bool) -> int:
    said = folded(text) if fold_case else normal(text)
    return _hash(f"{said}\0{image_sha256 or ''}")


def _picture(image_sha256: str | None) -> int:
    return _hash(image_sha256) if image_sha256 else NO_PICTURE


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), signed=True)
