"""Which pairs a job will judge: pure arithmetic over a corpus and its vectors, the same on every run."""

import threading
from collections import defaultdict
from collections.abc import Collection, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from miner.retrieve import FaissRetriever, Rows, Vectors, candidates_below
from unijudge.corpus import Corpus
from unijudge.errors import DataError, JudgeChanged
from unijudge.files import publish_json, read_json
from unijudge.scores import ScoreManifest
from unijudge.vectors import VectorFolder


class Candidates:
    """Retrieval over one corpus: its pools, its vectors, and what may not be a candidate."""

    def __init__(self, corpus: Corpus, vectors: Path, pool: str):
        """Reads the vectors.

        Raises:
            DataError: They are not whole, or belong to another corpus.
        """
        self._corpus = corpus
        self._per_subset = pool == "subset"
        folder = VectorFolder(vectors, corpus)
        self._items_ND, self._queries_QD = folder.whole("items"), folder.whole("queries")
        self._retrievers: dict[str | None, FaissRetriever] = {}
        self._pools: dict[str | None, Rows] = {}
        self._opening = threading.Lock()

    def of(self, rows: range, k: int) -> list[list[tuple[int, float]]]:
        """(item row, similarity) of the candidates of each query in `rows`, best first."""
        found: list[list[tuple[int, float]]] = [[] for _ in rows]
        by_pool: dict[str | None, list[int]] = defaultdict(list)
        for row in rows:
            by_pool[self._pool_name(row)].append(row)
        for name, members in by_pool.items():
            pool = self._pool(name)
            near = candidates_below(
                self._retriever(name),
                self._queries_QD[members],
                np.array([self.positive_similarity(row).max() for row in members]),
                [_places(pool, self.excluded(row)) for row in members],
                k,
            )
            for row, candidates in zip(members, near, strict=True):
                found[row - rows.start] = [(int(pool[place]), value) for place, value in candidates]
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
        return self._pool(self._pool_name(row))

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

    def _pool_name(self, row: int) -> str | None:
        return self._corpus.queries[row].subset if self._per_subset else None

    def _pool(self, name: str | None) -> Rows:
        with self._opening:
            if name not in self._pools:
                self._pools[name] = self._corpus.pool_rows(name)
            return self._pools[name]

    def _retriever(self, name: str | None) -> FaissRetriever:
        rows = self._pool(name)
        with self._opening:
            if name not in self._retrievers:
                self._retrievers[name] = FaissRetriever(self._items_ND if name is None else self._items_ND[rows])
            return self._retrievers[name]


def _places(pool: Rows, items: Collection[int]) -> list[int]:
    """Where items stand in an ascending pool; those outside of it are left out."""
    wanted = np.fromiter(items, np.int64)
    places = np.searchsorted(pool, wanted)
    inside = places < len(pool)
    inside[inside] = pool[places[inside]] == wanted[inside]
    return places[inside].tolist()


def start_plan(folder: Path, plan: ScoreManifest) -> None:
    """Publishes the plan of a score folder, or checks that the folder already follows the same one.

    Raises:
        JudgeChanged: The same plan, but another judge.
        DataError: Another plan.
    """
    path = folder / "manifest.json"
    if not path.exists():
        if any(folder.glob("part-*.parquet")):
            raise DataError(
                f"{folder}: holds shards, but manifest.json is gone; delete the folder, or give another one"
            )
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
