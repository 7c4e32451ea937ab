"""Which pairs a job will judge: pure arithmetic over a corpus and its vectors, the same on every run."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from miner.retrieve import FaissRetriever, Rows, Vectors, candidates_below
from unijudge.corpus import Corpus, Query
from unijudge.errors import DataError, JudgeChanged
from unijudge.files import publish_json, read_json
from unijudge.scores import ScoreManifest
from unijudge.vectors import read_vectors


@dataclass(frozen=True)
class Pool:
    """Where candidates are sought."""

    retriever: FaissRetriever
    items: Rows
    """Item row of each row of the retriever."""
    place: dict[int, int]
    """Item row → row of the retriever."""


class Candidates:
    """Retrieval over one corpus: its pools, its vectors, and what may not be a candidate."""

    def __init__(self, corpus: Corpus, vectors: Path, pool: str):
        """Reads the vectors.

        Raises:
            DataError: They are not whole, or belong to another corpus.
        """
        self._corpus = corpus
        self._pool = pool
        ids = [item.item_id for item in corpus.items]
        self._items_ND = read_vectors(vectors, "items", ids, corpus.fingerprint)
        query_ids = [query.query_id for query in corpus.queries]
        self._queries_QD = read_vectors(vectors, "queries", query_ids, corpus.fingerprint)
        self._pools: dict[str, Pool] = {}

    def of(self, rows: range, k: int) -> list[list[tuple[int, float]]]:
        """(item row, similarity) of the candidates of each query in `rows`, best first."""
        found: list[list[tuple[int, float]]] = [[] for _ in rows]
        by_pool: dict[str, list[int]] = defaultdict(list)
        for row in rows:
            by_pool[self._pool_name(self._corpus.queries[row])].append(row)
        for name, members in by_pool.items():
            pool = self._open_pool(name)
            near = candidates_below(
                pool.retriever,
                self._queries_QD[members],
                np.array([self.positive_similarity(row).max() for row in members]),
                [{pool.place[item] for item in self.excluded(row) if item in pool.place} for row in members],
                k,
            )
            for row, candidates in zip(members, near, strict=True):
                found[row - rows.start] = [(int(pool.items[index]), value) for index, value in candidates]
        return found

    def positive_similarity(self, row: int) -> Vectors:
        """The similarities of a query's own positives, in their order."""
        positives = [self._corpus.row_of[item] for item in self._corpus.queries[row].positive_ids]
        return self._items_ND[positives] @ self._queries_QD[row]

    def excluded(self, row: int) -> set[int]:
        """Items that are a positive of this query, or of another row that asks the same."""
        return self._positives_by_content[self._corpus.queries[row].key]

    @cached_property
    def _positives_by_content(self) -> dict[bytes, set[int]]:
        positives: dict[bytes, set[int]] = defaultdict(set)
        for query in self._corpus.queries:
            positives[query.key].update(self._corpus.row_of[item] for item in query.positive_ids)
        return positives

    def pool_of(self, row: int) -> Rows:
        """The item rows among which a query's candidates are sought."""
        return self._open_pool(self._pool_name(self._corpus.queries[row])).items

    def similarity(self, row: int, item: int) -> float:
        """Cosine of a query and an item."""
        return float(self._items_ND[item] @ self._queries_QD[row])

    def mean_similarity(self, items: Sequence[int]) -> float:
        """Mean cosine over all pairs of distinct items; how alike a row's negatives are. NaN for fewer than two."""
        vectors = self._items_ND[sorted(set(items))]
        num = len(vectors)
        if num < 2:
            return float("nan")
        return float((np.square(vectors.sum(0)).sum() - num) / (num * (num - 1)))

    def _pool_name(self, query: Query) -> str:
        return query.subset if self._pool == "subset" else ""

    def _open_pool(self, name: str) -> Pool:
        if name not in self._pools:
            rows = [row for row, item in enumerate(self._corpus.items) if not name or name in item.pools]
            if not rows:
                raise DataError(f'{self._corpus.folder}: subset {name!r} has no items; use pool = "global"')
            place = {item: index for index, item in enumerate(rows)}
            self._pools[name] = Pool(FaissRetriever(self._items_ND[rows]), np.array(rows, np.int64), place)
        return self._pools[name]


def start_plan(folder: Path, plan: ScoreManifest) -> None:
    """Publishes the plan of a score folder, or checks that the folder already follows the same one.

    Raises:
        JudgeChanged: The same plan, but another judge.
        DataError: Another plan.
    """
    path = folder / "manifest.json"
    if not path.exists():
        publish_json(path, plan)
        return
    found = read_json(path, ScoreManifest)
    different = [name for name, value in plan if value != getattr(found, name)]
    if different == ["judge"]:
        raise JudgeChanged(
            f"{folder}: was begun with {found.judge}, but now {plan.judge} answers; one folder holds one judge's "
            "scores: start that judge again, or give another output folder"
        )
    if different:
        changes = "; ".join(f"{name} was {getattr(found, name)}, is {getattr(plan, name)}" for name in different)
        raise DataError(f"{folder}: was begun with another plan ({changes}); a plan never changes, give another folder")
