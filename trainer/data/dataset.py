"""The training rows: contents from the corpus, and scores from the judge. A row becomes an `Example`."""

import logging
import math
from array import array
from collections import defaultdict
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unijudge.alike import Excluded, Exclusions, Sign
from unijudge.content import Content
from unijudge.errors import DataError, TrainingError
from unijudge.formats.corpus import Corpus, Item, Query
from unijudge.formats.lazy_table import Rows
from unijudge.formats.triples import TripleManifest, read_triples
from unijudge.storage.files import read_json

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Example:
    """A query, its positive and its negatives."""

    query: Content
    candidates: list[Content]
    """The candidates of the query, the positive first."""
    candidate_keys: list[bytes]
    """The content hash of each candidate."""
    signs: list[Sign]
    """The sign of each candidate, by which duplicates are recognised."""
    teacher: list[float] | None
    """The judge score of each candidate, in [0, 1]. None if the row was selected without a judge."""
    excluded: Excluded
    """The contents that cannot be a negative of the query, including further positives of the selection."""
    weight: float = 1.0
    """The weight of the row in the loss, in [0, 1]."""
    drawn: frozenset[int] = frozenset()
    """The indices of negatives that were drawn at random because no candidate survived. Their value in `teacher` is not
    a judge's score."""


@dataclass(frozen=True)
class Pool:
    """The items from which the negatives of a subset can be drawn."""

    subset: str
    rows: int
    """The number of training rows in the subset."""
    items: int
    """The number of distinct items in the pool."""


class Examples:
    """All rows of a selection. Memory holds only row numbers and scores; contents are read on demand."""

    def __init__(self, corpus: Corpus, triples: Path, negatives: int):
        """Reads and checks the rows, part by part, from a disk or an object store.

        Raises:
            DataError: The rows are incomplete, or belong to another corpus.
            TrainingError: The selection has no rows, or stores fewer negatives than requested.
        """
        self._corpus = corpus
        manifest = read_json(triples / "triples.json", TripleManifest)
        self._exclusions = Exclusions(corpus, fold_case=manifest.fold_case)
        mixed = repeated = 0
        subsets: dict[str, int] = {}
        further: dict[int, set[int]] = defaultdict(set)
        queries, groups, items, teachers, weights = (
            array("q"),
            array("q"),
            array("q"),
            array("d"),
            array("d"),
        )
        drawn = bytearray()
        for row in read_triples(triples, corpus.fingerprint):
            if len(row.negatives) < negatives:
                raise TrainingError(
                    f"num_negatives = {negatives}, but {triples} stores {len(row.negatives)}. Select with a larger "
                    "`num_negatives`, or lower the `num_negatives` of the training"
                )
            taken = replace(row, negatives=row.negatives[:negatives])
            mixed += len(taken.judges) > 1 and not manifest.calibrated
            repeated += any(negative.duplicate for negative in taken.negatives)
            queries.append(corpus.query_row_of[row.query_id])
            groups.append(subsets.setdefault(row.subset, len(subsets)))
            items.extend(
                corpus.row_of[candidate.item_id] for candidate in (taken.positive, *taken.negatives)
            )
            teachers.extend(
                math.nan if label is None else label for label in taken.labels(manifest.scales)
            )
            drawn.extend([False, *(negative.fallback for negative in taken.negatives)])
            weights.append(row.weight)
            if row.extra_positives:
                extra = (
                    self._exclusions.sign(corpus.row_of[item.item_id]).content
                    for item in row.extra_positives
                )
                further[self._exclusions.question(queries[-1])].update(extra)
        if not queries:
            raise TrainingError(f"{triples}: has no rows. Check the output of `mine select`")
        if mixed:
            logger.warning(
                "%s: %d of %d rows have soft labels of two judges that are not both calibrated, so the labels are not "
                "comparable. Select again with a calibration of each judge (`mine calibrate`)",
                triples,
                mixed,
                len(queries),
            )
        if repeated:
            logger.warning(
                "%s: %d of %d rows repeat negatives, since fewer than num_negatives = %d survived. Lower "
                "num_negatives, or select with a larger k, unless repeated negatives should have a larger weight",
                triples, repeated, len(queries), negatives,
            )  # fmt: skip
        self.groups: Rows = np.array(groups)
        """The number of each row's subset."""
        self._query_rows = np.array(queries)
        self._item_rows = np.array(items).reshape(-1, 1 + negatives)
        self._teachers = np.array(teachers).reshape(-1, 1 + negatives)
        self._drawn = np.frombuffer(drawn, bool).reshape(-1, 1 + negatives)
        self._weights = np.array(weights)
        self._subsets = list(subsets)
        self.at_random = manifest.selection.get("preset") == "random"
        """Whether the negatives were drawn from the whole pool."""
        self._further = dict(further)
        """For each question, the contents that the selection considers right in addition to the positives."""

    def without(self, left_out: Sequence[int]) -> "Examples":
        """Returns all rows except the given rows.

        Raises:
            TrainingError: No row is left.
        """
        kept = np.setdiff1d(np.arange(len(self)), left_out)
        if not len(kept):
            raise TrainingError(
                f"all {len(self)} rows are left out, so there is nothing to train on. See the warnings"
            )
        rest = copy(self)
        for name in ("groups", "_query_rows", "_item_rows", "_teachers", "_drawn", "_weights"):
            setattr(rest, name, getattr(self, name)[kept])
        return rest

    @property
    def teacher_NK(self) -> NDArray[np.float64]:
        """The judge scores in [0, 1] of all rows whose candidates are all judged, the positive first."""
        return self._teachers[~np.isnan(self._teachers).any(1)]

    def pools(self) -> list[Pool]:
        """Returns the pool of each subset. If a row has an item of another subset, the pool is that of all subsets."""
        pools = []
        for number, subset in enumerate(self._subsets):
            rows = np.flatnonzero(self.groups == number)
            items = self._corpus.pool_rows(subset)
            if not np.isin(self._item_rows[rows], items).all():
                items = self._corpus.pool_rows(None)
            # Items with equal contents count once, since a duplicate of a negative teaches nothing new.
            pools.append(Pool(subset, len(rows), len(np.unique(self._exclusions.contents[items]))))
        return pools

    def check_judged(self, why: str) -> None:
        """Checks that every row has a judge score for its positive and for each negative.

        Raises:
            TrainingError: Some rows lack scores. The message gives their number and the first query.
        """
        lacking = np.flatnonzero(np.isnan(self._teachers).any(1))
        if len(lacking):
            raise TrainingError(
                f"{why} needs a judge's scores, but {len(lacking)} of {len(self)} rows lack scores (the first: query "
                f"{self.query_id(int(lacking[0]))!r}). Set loss.name = 'infonce', or select with a preset that keeps "
                "judged candidates"
            )

    def __len__(self) -> int:
        return len(self._query_rows)

    def __getitem__(self, index: int) -> Example:
        """Reads the contents of one row.

        Raises:
            DataError: An image is missing or changed. The message names the query of the row.
        """
        return self._example(index, self._corpus.content)

    def texts(self, index: int) -> Example:
        """Returns the same row without its images. No image is read."""
        return self._example(index, lambda entry: Content(entry.text))

    @property
    def most_text(self) -> Rows:
        """The bytes of text in each row's query, positive and longest negative together."""
        asked, candidates = (
            self._corpus.queries.text_bytes,
            self._corpus.items.text_bytes[self._item_rows],
        )
        together: Rows = asked[self._query_rows] + candidates[:, 0] + candidates[:, 1:].max(1)
        return together

    def _example(self, index: int, content_of: Callable[[Item | Query], Content]) -> Example:
        query_row, item_rows = int(self._query_rows[index]), self._item_rows[index].tolist()
        query, items = (
            self._corpus.queries[query_row],
            [self._corpus.items[row] for row in item_rows],
        )
        teacher, further = (
            self._teachers[index],
            self._further.get(self._exclusions.question(query_row), ()),
        )
        try:
            contents = [content_of(entry) for entry in (query, *items)]
        except DataError as error:
            raise DataError(f"the row of query {query.query_id!r}: {error}") from error
        return Example(
            query=contents[0],
            candidates=contents[1:],
            candidate_keys=[item.key for item in items],
            signs=[self._exclusions.sign(row) for row in item_rows],
            teacher=None if np.isnan(teacher).any() else teacher.tolist(),
            excluded=self._exclusions.of(query_row).and_contents(further),
            weight=float(self._weights[index]),
            drawn=frozenset(np.flatnonzero(self._drawn[index]).tolist()),
        )

    def query_id(self, index: int) -> str:
        """Returns the id of a row's query, for messages."""
        return str(self._corpus.query_ids[self._query_rows[index]].as_py())
