"""Which items may be a candidate of which query: the pool it is sought in, and what is never one. Known by content."""

from collections import defaultdict
from functools import cached_property

import numpy as np

from unijudge.corpus import Corpus
from unijudge.entries import Rows


class Pools:
    """The pools of one corpus."""

    def __init__(self, corpus: Corpus, pool: str):
        """`pool` is `global`, `subset` or `modality`."""
        self._corpus = corpus
        self._pool = pool
        self._known: dict[str | None, Rows] = {}

    def rows(self, row: int) -> Rows:
        """The item rows among which a query's candidates are sought, ascending."""
        name = str(self._corpus.queries.table["subset"][row]) if self._pool == "subset" else None
        if name not in self._known:
            self._known[name] = self._corpus.pool_rows(name)
        return self._known[name]

    def excluded(self, row: int) -> Rows:
        """Items that are a positive of this query, or of another row that asks the same; ascending."""
        same = self._rows_by_content[self._corpus.queries[row].key]
        return np.unique(np.concatenate([self._corpus.positives(other) for other in same]))

    @cached_property
    def _rows_by_content(self) -> dict[bytes, list[int]]:
        rows: dict[bytes, list[int]] = defaultdict(list)
        for row, query in enumerate(self._corpus.queries):
            rows[query.key].append(row)
        return rows
