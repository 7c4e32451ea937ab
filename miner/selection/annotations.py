"""The annotations of a query's items: overrides by a person, and labels of the corpus. They apply to content, not rows.

An override of an item of a query applies to every row that asks the same question and to every item of the same
content. A label does too: the positive of another row with the same question is never a negative. An override takes
precedence over a label.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from miner.selection.overrides import Override
from miner.selection.resolve import OverrideMap, OverrideVerdict
from unijudge.alike import Exclusions
from unijudge.errors import DataError
from unijudge.formats.corpus import Corpus
from unijudge.formats.lazy_table import Rows
from unijudge.formats.scores import ScoreManifest

Codes = npt.NDArray[np.int8]
WORDS: tuple[OverrideVerdict | None, ...] = (None, "match", "negative", "known", "twin")
"""A code is an index into this tuple."""
CODE = {word: code for code, word in enumerate(WORDS)}


class Words:
    """All overrides and labels of the items of one corpus."""

    def __init__(
        self,
        corpus: Corpus,
        manifest: ScoreManifest,
        overrides: Sequence[Override],
        place: Path | None,
    ):
        """Groups overrides by content.

        Args:
            corpus: The corpus of the scores.
            manifest: The manifest of the scores. Contents count as equal as they did in the search for candidates.
            overrides: The overrides of a person.
            place: The file of overrides, for messages.

        Raises:
            DataError: Two overrides of the same content contradict each other.
        """
        self._corpus = corpus
        self._exclusions = Exclusions(
            corpus,
            fold_case=manifest.retrieval.get("fold_case", True),
            allow_query_image=manifest.retrieval.get("allow_query_image", False),
        )
        self.overrides = overrides
        self.rows: dict[str, set[str | None]] = {}
        """Query id → the items that the file overrides for this query; None for the whole row."""
        self._dropped: set[str] = set()
        """Ids of queries whose rows a person leaves out."""
        self._override_of: dict[tuple[int, int], Override] = {}
        """Question and content → its override."""
        for override in overrides:
            self.rows.setdefault(override.query_id, set()).add(override.item_id)
            self._add(override, place)
        self._overrides_of_question = Counter(question for question, _ in self._override_of)
        self._overridden_questions = np.array(sorted(self._overrides_of_question), np.int64)

    def of(self, query_id: str, positives: Sequence[str], candidates: Sequence[str]) -> OverrideMap:
        """Returns the overrides and labels of the items of one row. See `codes`."""
        queries = np.array([self._corpus.query_row_of[query_id]])
        overrides: dict[str | None, OverrideVerdict] = {}
        if query_id in self._dropped:
            overrides[None] = "drop"
        for names, are_positives in ((candidates, False), (positives, True)):
            at_N = np.zeros(len(names), np.int64)
            codes_N = self.codes(
                queries, at_N, pa.array(names, pa.string()), positives=are_positives
            )
            for name, code in zip(names, codes_N.tolist(), strict=True):
                verdict = WORDS[code]
                if verdict is not None:
                    overrides[name] = verdict
        return overrides

    def codes(
        self, queries: Rows, at_N: Rows, items: pa.Array, *, positives: bool = False
    ) -> Codes:
        """Returns the overrides and labels of many pairs.

        Args:
            queries: Rows of queries.parquet.
            at_N: For each pair, an index into `queries`. The pairs of one query are consecutive.
            items: The ids of the pairs' items. For each query, the most similar item comes first.
            positives: Whether the items are the positives of their queries. Labels do not apply to positives.

        Returns:
            A code for each pair: an index into `WORDS`.
        """
        codes_N = np.zeros(len(at_N), np.int8)
        if positives and not len(self._overridden_questions):
            return codes_N
        rows_N = self._corpus.row_of.rows(items)
        is_item_N = rows_N >= 0
        if not positives:
            is_known = self._exclusions.pairs(queries[at_N][is_item_N], rows_N[is_item_N])
            codes_N[is_item_N] = CODE["known"] * is_known

        # An override takes precedence over a label.
        questions = np.array(
            [self._exclusions.question(query) for query in queries.tolist()], np.int64
        )
        is_overridden = np.isin(questions, self._overridden_questions)
        for pair in np.flatnonzero(is_overridden[at_N] & is_item_N).tolist():
            content = int(self._exclusions.contents[rows_N[pair]])
            override = self._override_of.get((int(questions[at_N[pair]]), content))
            if override is not None:
                codes_N[pair] = CODE[override.verdict]
        if positives:
            return codes_N

        # Of candidates with the same content, all but the first are twins.
        pairs = np.flatnonzero(is_item_N)
        query_and_content = (
            at_N[pairs] * len(self._corpus.items) + self._exclusions.content_numbers[rows_N[pairs]]
        )
        first = np.unique(query_and_content, return_index=True)[1]
        codes_N[np.delete(pairs, first)] = CODE["twin"]
        return codes_N

    def heard_of(self, query: int) -> int:
        """Returns the number of contents that are overridden for the question of a query, given by its row."""
        return self._overrides_of_question[self._exclusions.question(query)]

    def dropped(self, query_ids: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Returns whether a person leaves out each row."""
        return np.array([query_id in self._dropped for query_id in query_ids], bool)

    def _add(self, override: Override, place: Path | None) -> None:
        if override.item_id is None:
            self._dropped.add(override.query_id)
            return

        # An unknown id is rejected later, when the scores are read.
        query, item = (
            self._corpus.query_row_of.get(override.query_id),
            self._corpus.row_of.get(override.item_id),
        )
        if query is None or item is None:
            return

        key = (self._exclusions.question(query), int(self._exclusions.contents[item]))
        earlier = self._override_of.setdefault(key, override)
        if earlier.verdict != override.verdict:
            raise DataError(
                f"{place}: query {override.query_id!r}, item {override.item_id!r} is {override.verdict!r}, but query "
                f"{earlier.query_id!r} asks the same question, and its item {earlier.item_id!r} of the same content is "
                f"{earlier.verdict!r}. Remove one of these two overrides from the file"
            )
