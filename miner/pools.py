"""Which items may be a candidate of which query: the pool it is sought in, and what is never one. Known by content.

An item that says the same as an earlier one (letter case and blanks aside, and the same picture) is left out of a pool;
one that says the same as a positive, or shows the query's own picture, is excluded for that query.
"""

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from unijudge.corpus import Corpus
from unijudge.entries import Rows

PoolKind = Literal["global", "subset", "modality"]
Hashes = npt.NDArray[np.int64]


class Pools:
    """The pools of one corpus."""

    def __init__(self, corpus: Corpus, kind: PoolKind, *, fold_case: bool = True, own_picture: bool = False):
        """Hashes every item once.

        Args:
            corpus: Items and queries.
            kind: One pool for all; one for each subset; or one for each modality (text, image, both), in which a query
                finds items of its own positives' kind.
            fold_case: Whether texts that differ in letter case or blanks alone are the same.
            own_picture: Whether items that show the query's own picture may be candidates.
        """
        self._corpus = corpus
        self._kind = kind
        self._own_picture = own_picture
        items = corpus.items.table
        texts = (_normal(text) if fold_case else (text or "") for text in _values(items["text"]))
        pictures = [picture or "" for picture in _values(items["image_sha256"])]
        self._contents = _hashes(f"{text}\0{picture}" for text, picture in zip(texts, pictures, strict=True))
        self._pictures = _hashes(iter(pictures))
        self._has_picture = np.array([bool(picture) for picture in pictures])
        self._modality = self._has_picture * 2 + np.array([bool(text) for text in _values(items["text"])])
        self._known: dict[str, Rows] = {}
        self._excluded_of: dict[int, Rows] = {}
        """Of questions that several rows ask, by their first row."""
        self._allowed: dict[tuple[int, str], Allowed] = {}

    def name(self, row: int) -> str:
        """The name of the pool in which a query's candidates are sought."""
        match self._kind:
            case "global":
                return ""
            case "subset":
                return str(self._corpus.queries.table["subset"][row])
            case "modality":
                return str(self._modality[self._corpus.positives(row)[0]])

    def of(self, name: str) -> Rows:
        """The item rows of a pool, ascending, each content once."""
        if name not in self._known:
            match self._kind:
                case "global":
                    rows = self._corpus.pool_rows(None)
                case "subset":
                    rows = self._corpus.pool_rows(name)
                case "modality":
                    rows = np.flatnonzero(self._modality == int(name))
            _, first = np.unique(self._contents[rows], return_index=True)
            self._known[name] = rows[np.sort(first)]
        return self._known[name]

    def rows(self, row: int) -> Rows:
        """The pool of one query."""
        return self.of(self.name(row))

    def excluded(self, row: int) -> Rows:
        """Items that say what a positive of this question says, or show the query's own picture; ascending.

        Rows that ask one question get one and the same array.
        """
        same = self._queries_by_content.equal_to(row)
        if len(same) == 1:
            return self._excluded(same)
        first = int(same[0])
        if first not in self._excluded_of:
            self._excluded_of[first] = self._excluded(same)
        return self._excluded_of[first]

    def _excluded(self, same: Rows) -> Rows:
        """Of all rows that ask one question."""
        positives = np.unique(np.concatenate([self._corpus.positives(int(row)) for row in same]))
        found = [self._items_by_content.like(value) for value in np.unique(self._contents[positives])]
        picture = self._corpus.queries.table["image_sha256"][int(same[0])].as_py()
        if picture and not self._own_picture:
            found.append(self._items_by_picture.like(_hash(picture)))
        return np.unique(np.concatenate(found))

    def allowed(self, row: int) -> "Allowed":
        """What a query's pool holds beside what is excluded."""
        same = self._queries_by_content.equal_to(row)
        if len(same) == 1:
            return Allowed(self.rows(row), self.excluded(row))
        known = int(same[0]), self.name(row)
        if known not in self._allowed:
            self._allowed[known] = Allowed(self.rows(row), self.excluded(row))
        return self._allowed[known]

    @cached_property
    def _queries_by_content(self) -> "_Groups":
        return _Groups(np.array([int.from_bytes(query.key[:8], signed=True) for query in self._corpus.queries]))

    @cached_property
    def _items_by_content(self) -> "_Groups":
        return _Groups(self._contents)

    @cached_property
    def _items_by_picture(self) -> "_Groups":
        return _Groups(np.where(self._has_picture, self._pictures, 0))


def repeated_questions(corpus: Corpus, rows: Iterable[int] | None = None) -> dict[bytes, int]:
    """The keys of the queries that more than one row asks, and how many do: of all rows, or of these."""
    queries = corpus.queries if rows is None else (corpus.queries[row] for row in rows)
    counts = Counter(query.key for query in queries)
    return {key: count for key, count in counts.items() if count > 1}


class Allowed:
    """A pool without what is excluded, from which items are drawn by their place: no list of it is made."""

    def __init__(self, pool: Rows, excluded: Rows):
        """Both ascending."""
        places = np.searchsorted(pool, excluded)
        inside = places < len(pool)
        inside[inside] = pool[places[inside]] == excluded[inside]
        out = places[inside]
        self._pool = pool
        self._before = out - np.arange(len(out))  # how many allowed ones stand before each excluded one

    def __len__(self) -> int:
        return len(self._pool) - len(self._before)

    def take(self, places: Sequence[int]) -> Rows:
        """The item rows at some places.

        Example:
            >>> Allowed(np.array([2, 3, 5, 7, 9]), np.array([3, 4, 7])).take([0, 1, 2]).tolist()
            [2, 5, 9]
        """
        wanted = np.asarray(places, np.int64)
        return self._pool[wanted + np.searchsorted(self._before, wanted, side="right")]


class _Groups:
    """Rows by their hash."""

    def __init__(self, hashes: Hashes):
        self._hashes = hashes
        self._order = np.argsort(hashes, kind="stable")
        self._sorted = hashes[self._order]

    def like(self, value: np.int64 | int) -> Rows:
        """The rows with this hash, ascending."""
        left, right = np.searchsorted(self._sorted, value, "left"), np.searchsorted(self._sorted, value, "right")
        return self._order[left:right]

    def equal_to(self, row: int) -> Rows:
        """The rows with the hash of a row, itself among them."""
        return self.like(self._hashes[row])


def _normal(text: str | None) -> str:
    r"""What of a text counts: one letter case, single blanks, compatible characters as one.

    Example:
        >>> _normal(" Director  and Executive SECRETARY\n") == _normal("director and executive secretary")
        True
    """
    return " ".join(unicodedata.normalize("NFKC", text or "").casefold().split())


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), signed=True)


def _hashes(texts: Iterable[str]) -> Hashes:
    return np.fromiter((_hash(text) for text in texts), np.int64)


def _values(column: pa.ChunkedArray) -> list[str | None]:
    return [value for chunk in column.chunks for value in chunk.to_pylist()]
