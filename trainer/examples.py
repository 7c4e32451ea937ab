"""Training rows as the loop takes them: contents from the corpus, scores from the judge. One row is one `Example`."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from unijudge.corpus import Content, Corpus
from unijudge.errors import TrainingError
from unijudge.scores import Judged
from unijudge.triples import Negative, Triple, read_triples
from unijudge.verdicts import sigmoid


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


class Examples:
    """All rows of a selection, read lazily: only texts and paths are in memory."""

    def __init__(self, corpus: Corpus, triples: Path, negatives: int):
        """Reads and checks the rows.

        Raises:
            DataError: The rows are not whole, or belong to another corpus.
            TrainingError: No rows, or fewer negatives stored than asked for.
        """
        self._corpus = corpus
        self._query_row = {query.query_id: row for row, query in enumerate(corpus.queries)}
        self._rows: list[Triple] = list(read_triples(triples, corpus.fingerprint))
        if not self._rows:
            raise TrainingError(f"{triples}: has no rows; see what `mine select` printed")
        stored = min(len(row.negatives) for row in self._rows)
        if stored < negatives:
            raise TrainingError(
                f"negatives = {negatives}, but {triples} stores {stored}; select with stored = {negatives}"
            )
        self._negatives = negatives
        self._positives: dict[bytes, set[bytes]] = defaultdict(set)
        for query in corpus.queries:
            self._positives[query.key].update(corpus.items[corpus.row_of[i]].key for i in query.positive_ids)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Example:
        row = self._rows[index]
        query = self._corpus.queries[self._query_row[row.query_id]]
        judged = [row.positive, *row.negatives[: self._negatives]]
        items = [self._corpus.items[self._corpus.row_of[one.item_id]] for one in judged]
        scores = [_teacher_score(one) for one in judged]
        return Example(
            query=self._corpus.content(query),
            candidates=[self._corpus.content(item) for item in items],
            candidate_keys=[item.key for item in items],
            teacher=None if None in scores else [score for score in scores if score is not None],
            positive_keys=frozenset(self._positives[query.key]),
        )


def _teacher_score(judged: Judged) -> float | None:
    if isinstance(judged, Negative) and judged.fallback:
        return 1.0  # as the paper has it; only its preset writes such rows
    return None if judged.log_odds is None else sigmoid(judged.log_odds)
