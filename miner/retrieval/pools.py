"""Which items may be a candidate of which query: the pool it is sought in, and what is never one. Known by content.

An item that says the same as an earlier one (letter case and blanks aside, and the same picture) is left out of a pool;
what is excluded for a query is said in `unijudge/alike.py`.
"""

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np

from unijudge.alike import Exclusions
from unijudge.formats.corpus import Corpus
from unijudge.formats.lazy_table import Rows, values_of
from unijudge.judging.prompt import is_blank

KEY_BYTES = 16
"""Of a content's hash."""
PoolKind = Literal["global", "subset", "modality"]


class Pools:
    """The pools of one corpus."""

    def __init__(
        self,
        corpus: Corpus,
        kind: PoolKind,
        *,
        fold_case: bool = True,
        allow_query_image: bool = False,
        unseen: Rows | None = None,
    ):
        """Hashes every item once.

        Args:
            corpus: Items and queries.
            kind: One pool for all; one for each subset; or one for each modality (text, image, both), in which a query
                finds items of its own positives' kind.
            fold_case: Whether texts that differ in letter case or blanks alone are the same.
            allow_query_image: Whether items that show the query's own picture may be candidates.
            unseen: Items that are in no pool: those without a vector, where a pool is searched.
        """
        self._corpus = corpus
        self._kind = kind
        self._exclusions = Exclusions(corpus, fold_case=fold_case, allow_query_image=allow_query_image)
        items = corpus.items.table
        has_picture = np.fromiter(map(bool, values_of(items["image_sha256"])), bool)
        has_text = ~np.fromiter(map(is_blank, values_of(items["text"])), bool)  # as the judge reads it
        self._modality = has_picture * 2 + has_text
        self._unseen = np.empty(0, np.int64) if unseen is None else unseen
        self._known: dict[str, Rows] = {}
        self._excluded_of: dict[int, Rows] = {}
        """Of questions that several rows ask."""
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
            rows = np.setdiff1d(rows, self._unseen)
            _, first = np.unique(self._exclusions.contents[rows], return_index=True)
            self._known[name] = rows[np.sort(first)]
        return self._known[name]

    def rows(self, row: int) -> Rows:
        """The pool of one query."""
        return self.of(self.name(row))

    def excluded(self, row: int) -> Rows:
        """Items that can be no wrong answer to a query: `unijudge.alike.Exclusions.rows`.

        Rows that ask one question get one and the same array.
        """
        if not self._exclusions.is_repeated(row):
            return self._exclusions.rows(row)
        question = self._exclusions.question(row)
        if question not in self._excluded_of:
            self._excluded_of[question] = self._exclusions.rows(row)
        return self._excluded_of[question]

    def allowed(self, row: int) -> "Allowed":
        """What a query's pool holds beside what is excluded."""
        if not self._exclusions.is_repeated(row):
            return Allowed(self.rows(row), self.excluded(row))
        known = self._exclusions.question(row), self.name(row)
        if known not in self._allowed:
            self._allowed[known] = Allowed(self.rows(row), self.excluded(row))
        return self._allowed[known]


def repeated_questions(corpus: Corpus, rows: Iterable[int] | None = None) -> dict[bytes, int]:
    """The keys of the queries that more than one row asks, and how many do: of all rows, or of these."""
    queries = corpus.queries if rows is None else (corpus.queries[row] for row in rows)
    found = bytearray()
    for query in queries:
        found += query.key
    keys, counts = np.unique(np.frombuffer(found, f"S{KEY_BYTES}"), return_counts=True)
    several = zip(keys[counts > 1].tolist(), counts[counts > 1].tolist(), strict=True)
    return {key.ljust(KEY_BYTES, b"\0"): count for key, count in several}  # numpy cuts zeros off the end


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
