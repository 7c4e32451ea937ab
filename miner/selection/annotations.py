"""What is said about the items of a query, by people and by the labels of the corpus. By content, not by row.

A person's word about an item of a question holds for every row that asks the same, and for every item that says the
same. So does a label: another row's positive of the same question is no negative. A person's word stands above a label.
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
"""A code is a place in here."""
CODE = {word: code for code, word in enumerate(WORDS)}


class Words:
    """All that is said about the scores of one corpus."""

    def __init__(self, corpus: Corpus, manifest: ScoreManifest, overrides: Sequence[Override], place: Path | None):
        """Puts overrides down by content.

        Args:
            corpus: The corpus of the scores.
            manifest: How its candidates were sought; what is alike is alike in the same sense.
            overrides: A person's words.
            place: The file of these, for messages.

        Raises:
            DataError: Two of the words are about the same content, and contradict each other.
        """
        self._corpus = corpus
        self._exclusions = Exclusions(
            corpus,
            fold_case=manifest.retrieval.get("fold_case", True),
            allow_query_image=manifest.retrieval.get("allow_query_image", False),
        )
        self.overrides = overrides
        self.rows: dict[str, set[str | None]] = {}
        """Query id → the items that the file names for it; None for the whole row."""
        self._dropped: set[str] = set()
        self._heard: dict[tuple[int, int], Override] = {}
        for one in overrides:
            self.rows.setdefault(one.query_id, set()).add(one.item_id)
            self._hear(one, place)
        self._about = Counter(question for question, _ in self._heard)
        self._spoken_of = np.array(sorted({question for question, _ in self._heard}), np.int64)

    def of(self, query_id: str, positives: Sequence[str], candidates: Sequence[str]) -> OverrideMap:
        """What is said about the items of one row; see `codes`."""
        queries = np.array([self._corpus.query_row_of[query_id]])
        overrides: dict[str | None, OverrideVerdict] = {None: "drop"} if query_id in self._dropped else {}
        for names, labelled in ((candidates, False), (positives, True)):
            at_N = np.zeros(len(names), np.int64)
            codes = self.codes(queries, at_N, pa.array(names, pa.string()), positives=labelled).tolist()
            for name, code in zip(names, codes, strict=True):
                word = WORDS[code]
                if word is not None:
                    overrides[name] = word
        return overrides

    def codes(self, queries: Rows, at_N: Rows, items: pa.Array, *, positives: bool = False) -> Codes:
        """What is said about many pairs.

        Args:
            queries: Rows of queries.parquet.
            at_N: For each pair, a place in `queries`; pairs of one query stand together.
            items: The ids of the pairs' items, of each query the most similar one first.
            positives: Whether these are the queries' own positives, about which only people have a say.

        Returns:
            A code for each pair: a place in `WORDS`.
        """
        codes_N = np.zeros(len(at_N), np.int8)
        if positives and not len(self._spoken_of):
            return codes_N
        rows_N = self._corpus.row_of.rows(items)
        there_N = rows_N >= 0
        if not positives:
            codes_N[there_N] = CODE["known"] * self._exclusions.pairs(queries[at_N][there_N], rows_N[there_N])

        # A person's word stands above a label.
        questions = np.array([self._exclusions.question(query) for query in queries.tolist()], np.int64)
        spoken_of = np.isin(questions, self._spoken_of)
        for place in np.flatnonzero(spoken_of[at_N] & there_N).tolist():
            content = int(self._exclusions.contents[rows_N[place]])
            heard = self._heard.get((int(questions[at_N[place]]), content))
            if heard is not None:
                codes_N[place] = CODE[heard.verdict]
        if positives:
            return codes_N

        # Of candidates alike the first one stands for all.
        there = np.flatnonzero(there_N)
        alike = at_N[there] * len(self._corpus.items) + self._exclusions.content_numbers[rows_N[there]]
        first = np.unique(alike, return_index=True)[1]
        codes_N[np.delete(there, first)] = CODE["twin"]
        return codes_N

    def heard_of(self, query: int) -> int:
        """About how many contents people had a say under the question of a query, by its row."""
        return self._about[self._exclusions.question(query)]

    def dropped(self, query_ids: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Which rows a person leaves out."""
        return np.array([query_id in self._dropped for query_id in query_ids], bool)

    def _hear(self, one: Override, place: Path | None) -> None:
        if one.item_id is None:
            self._dropped.add(one.query_id)
            return
        query, item = self._corpus.query_row_of.get(one.query_id), self._corpus.row_of.get(one.item_id)
        if query is None or item is None:
            return  # refused by name, once the row's scores are read
        name = (self._exclusions.question(query), int(self._exclusions.contents[item]))
        before = self._heard.setdefault(name, one)
        if before.verdict != one.verdict:
            raise DataError(
                f"{place}: query {one.query_id!r}, item {one.item_id!r} is {one.verdict!r}, but query "
                f"{before.query_id!r} asks the same, and its item {before.item_id!r}, which says the same, is "
                f"{before.verdict!r}; leave one of the two in the file"
            )
