"""The pool of items in which a query's candidates are searched, and the items that are excluded for the query.

Items are compared by content. If two items have the same text (ignoring case and whitespace) and the same image, a pool
holds only the first item. `unijudge/alike.py` defines which items are excluded for a query.
"""

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np

from unijudge.alike import Exclusions
from unijudge.formats.corpus import Corpus
from unijudge.formats.lazy_table import Rows, values_of
from unijudge.judging.prompt import is_blank

KEY_BYTES = 16
"""Bytes of the hash of a content."""
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
            kind: `global`: one pool for all queries. `subset`: one pool for each subset. `modality`: one pool for each
                modality (text, image, or both); a query is searched in the pool of its positives' modality.
            fold_case: Whether texts that differ only in case or whitespace are the same.
            allow_query_image: Whether items that show the query's own image may be candidates.
            unseen: Rows of items that no pool holds, such as items without a vector.
        """
        self._corpus = corpus
        self._kind = kind
        self._exclusions = Exclusions(
            corpus, fold_case=fold_case, allow_query_image=allow_query_image
        )
        self._unseen = np.empty(0, np.int64) if unseen is None else unseen

        # The modality is a number: 1 for text, 2 for an image, 3 for both. The judge ignores a blank text.
        items = corpus.items.table
        has_image = np.fromiter(map(bool, values_of(items["image_sha256"])), bool)
        is_textless = np.fromiter(map(is_blank, values_of(items["text"])), bool)
        self._modality = has_image * 2 + ~is_textless

        self._pool_rows: dict[str, Rows] = {}
        """Pool name → item rows, as `of` found them."""
        self._excluded_of: dict[int, Rows] = {}
        """Question → excluded rows, for questions that several rows ask."""
        self._allowed: dict[tuple[int, str], Allowed] = {}
        """Question and pool name → allowed rows, for questions that several rows ask."""

    def name(self, row: int) -> str:
        """Returns the name of the pool in which a query's candidates are searched."""
        match self._kind:
            case "global":
                return ""
            case "subset":
                return str(self._corpus.queries.table["subset"][row])
            case "modality":
                return str(self._modality[self._corpus.positives(row)[0]])

    def of(self, name: str) -> Rows:
        """Returns the item rows of a pool, ascending, with each content once."""
        if name not in self._pool_rows:
            match self._kind:
                case "global":
                    rows = self._corpus.pool_rows(None)
                case "subset":
                    rows = self._corpus.pool_rows(name)
                case "modality":
                    rows = np.flatnonzero(self._modality == int(name))
            rows = np.setdiff1d(rows, self._unseen)
            _, first = np.unique(self._exclusions.contents[rows], return_index=True)
            self._pool_rows[name] = rows[np.sort(first)]
        return self._pool_rows[name]

    def rows(self, row: int) -> Rows:
        """Returns the item rows of the pool of one query."""
        return self.of(self.name(row))

    def excluded(self, row: int) -> Rows:
        """Returns the items that cannot be a wrong answer to a query. See `unijudge.alike.Exclusions.rows`.

        Rows that ask the same question get the same array object.
        """
        if not self._exclusions.is_repeated(row):
            return self._exclusions.rows(row)
        question = self._exclusions.question(row)
        if question not in self._excluded_of:
            self._excluded_of[question] = self._exclusions.rows(row)
        return self._excluded_of[question]

    def allowed(self, row: int) -> "Allowed":
        """Returns the items of a query's pool without the excluded items."""
        if not self._exclusions.is_repeated(row):
            return Allowed(self.rows(row), self.excluded(row))
        key = self._exclusions.question(row), self.name(row)
        if key not in self._allowed:
            self._allowed[key] = Allowed(self.rows(row), self.excluded(row))
        return self._allowed[key]


def repeated_questions(corpus: Corpus, rows: Iterable[int] | None = None) -> dict[bytes, int]:
    """Counts the rows of each query that several rows ask.

    Args:
        corpus: The corpus.
        rows: The rows of queries to count; None counts all rows.

    Returns:
        Key of a query → number of its rows, at least 2.
    """
    queries = corpus.queries if rows is None else (corpus.queries[row] for row in rows)
    joined = bytearray()
    for query in queries:
        joined += query.key
    all_keys = np.frombuffer(joined, f"S{KEY_BYTES}")
    keys, counts = np.unique(all_keys, return_counts=True)

    repeated: dict[bytes, int] = {}
    for index in np.flatnonzero(counts > 1):
        key = bytes(keys[index]).ljust(KEY_BYTES, b"\0")  # numpy strips trailing zero bytes
        repeated[key] = int(counts[index])
    return repeated


class Allowed:
    """A pool without the excluded items. Takes items by index without copying the pool."""

    def __init__(self, pool: Rows, excluded: Rows):
        """Finds the excluded items in the pool.

        Args:
            pool: Item rows, ascending.
            excluded: Item rows, ascending; some may lie outside the pool.
        """
        places = np.searchsorted(pool, excluded)
        inside = places < len(pool)
        inside[inside] = pool[places[inside]] == excluded[inside]
        excluded_places = places[inside]
        self._pool = pool
        self._allowed_before = excluded_places - np.arange(len(excluded_places))
        """Number of allowed items before each excluded item."""

    def __len__(self) -> int:
        return len(self._pool) - len(self._allowed_before)

    def take(self, places: Sequence[int]) -> Rows:
        """Returns the item rows at some indexes into the allowed items.

        Example:
            >>> Allowed(np.array([2, 3, 5, 7, 9]), np.array([3, 4, 7])).take([0, 1, 2]).tolist()
            [2, 5, 9]
        """
        wanted = np.asarray(places, np.int64)
        skipped = np.searchsorted(self._allowed_before, wanted, side="right")
        return self._pool[wanted + skipped]
