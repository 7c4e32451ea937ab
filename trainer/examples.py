"""Training rows as the loop takes them: contents from the corpus, scores from the judge. One row is one `Example`."""

import logging
import math
from array import array
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unijudge.corpus import Content, Corpus
from unijudge.errors import TrainingError
from unijudge.files import read_json
from unijudge.triples import TripleManifest, read_triples

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Example:
    """One query, its positive and its negatives."""

    query: Content
    candidates: list[Content]
    """The positive first."""
    candidate_keys: list[bytes]
    """Content hashes, in the same order."""
    teacher: list[float] | None
    """Judge scores in [0, 1], in the same order; None where the row was selected without a judge."""
    positive_keys: frozenset[bytes]
    """Content hashes of every known positive of this question."""
    weight: float = 1.0
    """Of the row in the loss, 0 … 1."""


class Examples:
    """All rows of a selection; in memory only as row numbers and scores, contents are read when asked for."""

    def __init__(self, corpus: Corpus, triples: Path, negatives: int):
        """Reads and checks the rows.

        Raises:
            DataError: The rows are not whole, or belong to another corpus.
            TrainingError: No rows, or fewer negatives stored than asked for.
        """
        self._corpus = corpus
        query_row = {query.query_id: row for row, query in enumerate(corpus.queries)}
        manifest = read_json(triples / "triples.json", TripleManifest)
        mixed = 0
        queries, items, teachers, weights = array("q"), array("q"), array("d"), array("d")
        for row in read_triples(triples, corpus.fingerprint):
            if len(row.negatives) < negatives:
                raise TrainingError(
                    f"negatives = {negatives}, but {triples} stores {len(row.negatives)}; select with a larger `stored`"
                )
            taken = replace(row, negatives=row.negatives[:negatives])
            mixed += len(taken.judges) > 1 and not manifest.calibrated
            queries.append(query_row[row.query_id])
            items.extend(corpus.row_of[one.item_id] for one in (taken.positive, *taken.negatives))
            teachers.extend(math.nan if label is None else label for label in taken.labels(manifest.scales))
            weights.append(row.weight)
        if not queries:
            raise TrainingError(f"{triples}: has no rows; see what `mine select` printed")
        if mixed:
            logger.warning(
                "%s: %d of %d rows have soft labels of two judges that are not both calibrated, and so not comparable; "
                "select again with a calibration of each (`mine calibrate`)",
                triples,
                mixed,
                len(queries),
            )
        self._query_rows = np.array(queries)
        self._item_rows = np.array(items).reshape(-1, 1 + negatives)
        self._teachers = np.array(teachers).reshape(-1, 1 + negatives)
        self._weights = np.array(weights)
        self._positives: dict[bytes, set[bytes]] = defaultdict(set)
        for query in corpus.queries:
            self._positives[query.key].update(corpus.items[corpus.row_of[i]].key for i in query.positive_ids)

    @property
    def teacher_NK(self) -> NDArray[np.float64]:
        """Judge scores in [0, 1] of every row that was judged whole, the positive first."""
        return self._teachers[~np.isnan(self._teachers).any(1)]

    def __len__(self) -> int:
        return len(self._query_rows)

    def __getitem__(self, index: int) -> Example:
        query = self._corpus.queries[self._query_rows[index]]
        items = [self._corpus.items[row] for row in self._item_rows[index]]
        teacher = self._teachers[index]
        return Example(
            query=self._corpus.content(query),
            candidates=[self._corpus.content(item) for item in items],
            candidate_keys=[item.key for item in items],
            teacher=None if np.isnan(teacher).any() else teacher.tolist(),
            positive_keys=frozenset(self._positives[query.key]),
            weight=float(self._weights[index]),
        )
