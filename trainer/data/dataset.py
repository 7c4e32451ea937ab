"""Training rows as the loop takes them: contents from the corpus, scores from the judge. One row is one `Example`."""

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
    """One query, its positive and its negatives."""

    query: Content
    candidates: list[Content]
    """The positive first."""
    candidate_keys: list[bytes]
    """Content hashes, in the same order."""
    signs: list[Sign]
    """By what they are known among their like, in the same order."""
    teacher: list[float] | None
    """Judge scores in [0, 1], in the same order; None where the row was selected without a judge."""
    excluded: Excluded
    """What can be no negative of this question, further positives of the selection among it."""
    weight: float = 1.0
    """Of the row in the loss, 0 … 1."""
    drawn: frozenset[int] = frozenset()
    """Places of negatives that were drawn at random, since none survived: their 1 in `teacher` is no judge's word."""


@dataclass(frozen=True)
class Pool:
    """What the negatives of one subset can be drawn from."""

    subset: str
    rows: int
    """Training rows of the subset."""
    items: int
    """Distinct items."""


class Examples:
    """All rows of a selection; in memory only as row numbers and scores, contents are read when asked for."""

    def __init__(self, corpus: Corpus, triples: Path, negatives: int):
        """Reads and checks the rows, part by part, from a disk or an object store.

        Raises:
            DataError: The rows are not whole, or belong to another corpus.
            TrainingError: No rows, or fewer negatives stored than asked for.
        """
        self._corpus = corpus
        manifest = read_json(triples / "triples.json", TripleManifest)
        self._exclusions = Exclusions(corpus, fold_case=manifest.fold_case)
        mixed = repeated = 0
        subsets: dict[str, int] = {}
        further: dict[int, set[int]] = defaultdict(set)
        queries, groups, items, teachers, weights = array("q"), array("q"), array("q"), array("d"), array("d")
        drawn = bytearray()
        for row in read_triples(triples, corpus.fingerprint):
            if len(row.negatives) < negatives:
                raise TrainingError(
                    f"num_negatives = {negatives}, but {triples} stores {len(row.negatives)}; select with a larger "
                    "`num_negatives`, or lower the training's own"
                )
            taken = replace(row, negatives=row.negatives[:negatives])
            mixed += len(taken.judges) > 1 and not manifest.calibrated
            repeated += any(negative.duplicate for negative in taken.negatives)
            queries.append(corpus.query_row_of[row.query_id])
            groups.append(subsets.setdefault(row.subset, len(subsets)))
            items.extend(corpus.row_of[one.item_id] for one in (taken.positive, *taken.negatives))
            teachers.extend(math.nan if label is None else label for label in taken.labels(manifest.scales))
            drawn.extend([False, *(one.fallback for one in taken.negatives)])
            weights.append(row.weight)
            if row.extra_positives:
                found = (self._exclusions.sign(corpus.row_of[one.item_id]).content for one in row.extra_positives)
                further[self._exclusions.question(queries[-1])].update(found)
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
        if repeated:
            logger.warning(
                "%s: %d of %d rows repeat negatives, since fewer than num_negatives = %d survived; lower that, or "
                "select with a larger k, unless you mean to weigh them so",
                triples, repeated, len(queries), negatives,
            )  # fmt: skip
        self.groups: Rows = np.array(groups)
        """Of each row, the number of its subset."""
        self._query_rows = np.array(queries)
        self._item_rows = np.array(items).reshape(-1, 1 + negatives)
        self._teachers = np.array(teachers).reshape(-1, 1 + negatives)
        self._drawn = np.frombuffer(drawn, bool).reshape(-1, 1 + negatives)
        self._weights = np.array(weights)
        self._subsets = list(subsets)
        self.at_random = manifest.selection.get("preset") == "random"
        """Whether the negatives were drawn from the whole pool."""
        self._further = dict(further)
        """Of a question, what the selection holds for right besides its positives."""

    def without(self, left_out: Sequence[int]) -> "Examples":
        """The same rows but for these.

        Raises:
            TrainingError: None would be left.
        """
        kept = np.setdiff1d(np.arange(len(self)), left_out)
        if not len(kept):
            raise TrainingError(f"all {len(self)} rows are left out, so there is nothing to train on; see the warnings")
        rest = copy(self)
        for name in ("groups", "_query_rows", "_item_rows", "_teachers", "_drawn", "_weights"):
            setattr(rest, name, getattr(self, name)[kept])
        return rest

    @property
    def teacher_NK(self) -> NDArray[np.float64]:
        """Judge scores in [0, 1] of every row that was judged whole, the positive first."""
        return self._teachers[~np.isnan(self._teachers).any(1)]

    def pools(self) -> list[Pool]:
        """The pool of each subset: its own, or that of all subsets where a row has an item from outside of its own."""
        found = []
        for number, subset in enumerate(self._subsets):
            rows = np.flatnonzero(self.groups == number)
            items = self._corpus.pool_rows(subset)
            if not np.isin(self._item_rows[rows], items).all():
                items = self._corpus.pool_rows(None)
            # Items that say the same are one: a negative that repeats another one teaches nothing new.
            found.append(Pool(subset, len(rows), len(np.unique(self._exclusions.contents[items]))))
        return found

    def check_judged(self, why: str) -> None:
        """Refuses rows without a label of their positive or of a negative.

        Raises:
            TrainingError: There are some: their number, and the first query.
        """
        lacking = np.flatnonzero(np.isnan(self._teachers).any(1))
        if len(lacking):
            raise TrainingError(
                f"{why} needs a judge's scores, but {len(lacking)} of {len(self)} rows lack some (the first: query "
                f"{self.query_id(int(lacking[0]))!r}); set loss.name = 'infonce', or select with a preset that keeps "
                "judged candidates"
            )

    def __len__(self) -> int:
        return len(self._query_rows)

    def __getitem__(self, index: int) -> Example:
        """Reads one row's contents.

        Raises:
            DataError: An image is gone or changed; the row's query is named.
        """
        return self._example(index, self._corpus.content)

    def texts(self, index: int) -> Example:
        """The same row without its pictures, which are not read."""
        return self._example(index, lambda entry: Content(entry.text))

    @property
    def most_text(self) -> Rows:
        """Of each row the most bytes of text that stand together: query, positive and longest negative."""
        asked, candidates = self._corpus.queries.text_bytes, self._corpus.items.text_bytes[self._item_rows]
        together: Rows = asked[self._query_rows] + candidates[:, 0] + candidates[:, 1:].max(1)
        return together

    def _example(self, index: int, content_of: Callable[[Item | Query], Content]) -> Example:
        query_row, item_rows = int(self._query_rows[index]), self._item_rows[index].tolist()
        query, items = self._corpus.queries[query_row], [self._corpus.items[row] for row in item_rows]
        teacher, further = self._teachers[index], self._further.get(self._exclusions.question(query_row), ())
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
        """Who a row belongs to, for messages."""
        return str(self._corpus.query_ids[self._query_rows[index]].as_py())
