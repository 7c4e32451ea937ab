"""Counts exactly how many pairs a job will ask about, for every k up to the k of the job.

Letters: K candidates of a query.
"""

import threading
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from miner.retrieval.pools import repeated_questions
from miner.scoring.pairs import PairSource
from miner.scoring.score_cache import ScoreCache
from miner.stopping import check
from unijudge.formats.corpus import Corpus
from unijudge.formats.lazy_table import LazyTable

QUERIES_AT_ONCE = 4096
NEVER = np.iinfo(np.int32).max

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PairCounts:
    """The pairs of a job, counted by the rank of their candidate. A smaller k has the pairs of smaller ranks."""

    queries: int
    positives: int
    new_positives: int
    """Number of pairs with a positive that have no verdict yet."""
    at_rank_K: Counts
    """Number of pairs at each rank."""
    new_at_rank_K: Counts
    """Number of pairs at each rank that have no verdict yet. A pair counts as often as the job asks about it."""
    new_queries_at_rank_K: Counts
    """Number of queries by the rank of their first pair without a verdict; 0 for a positive."""
    new_images_at_rank_K: Counts
    """Number of images in the prompts of the pairs at each rank that have no verdict yet."""
    new_positive_images: int
    """Number of images in the prompts of the pairs with a positive that have no verdict yet."""
    new_characters: int
    """Number of characters in the texts of the pairs that have no verdict yet, for the k of the job."""
    candidates_Q: Counts
    """Number of candidates of each query."""
    picture_rank: Counts
    """For each distinct image to send, the smallest rank of a pair with the image; 0 for a positive."""

    @property
    def k(self) -> int:
        """The k of the job, the largest k with counts."""
        return len(self.at_rank_K)

    def pairs(self, k: int) -> int:
        """Returns the number of pairs with the first k candidates."""
        return self.positives + int(self.at_rank_K[:k].sum())

    def to_ask(self, k: int) -> int:
        """Returns the number of pairs that have no verdict yet."""
        return self.new_positives + int(self.new_at_rank_K[:k].sum())

    def images(self, k: int) -> int:
        """Returns the number of images in the prompts of the pairs that have no verdict yet."""
        return self.new_positive_images + int(self.new_images_at_rank_K[:k].sum())

    def asking(self, k: int) -> int:
        """Returns the number of queries with at least one pair that has no verdict yet."""
        return int(self.new_queries_at_rank_K[: max(1, k)].sum())

    def pictures(self, k: int) -> int:
        """Returns the number of distinct images to send."""
        return int((self.picture_rank < max(1, k)).sum())

    def underfilled(self, k: int) -> int:
        """Returns the number of queries with fewer than k candidates."""
        return int((self.candidates_Q < k).sum())


@dataclass(frozen=True)
class Division:
    """The division of a job into shards."""

    shard_size: int
    apart: bool = False
    """Whether each shard is a separate task that cannot reuse the answers of other shards, as with Ray."""
    written: frozenset[int] = frozenset()
    """Shards that are already written. Their pairs are not asked about."""


def count_pairs(
    corpus: Corpus,
    questions: PairSource,
    known: ScoreCache,
    k: int,
    stop: threading.Event | None = None,
    division: Division | None = None,
) -> PairCounts:
    """Counts the pairs of all questions of a job.

    Args:
        corpus: The corpus of the job.
        questions: The questions of the job.
        known: The verdicts of earlier jobs.
        k: The k of the job.
        stop: Ends the count early.
        division: The division into shards; None: a single scorer asks all questions.

    Raises:
        Stopped: `stop` was set during the count.
    """
    new_of = _NewPairs(corpus, known, division or Division(max(1, len(corpus.queries))))
    positives = new_positives = 0
    new_positive_images = new_characters = 0
    at_rank, new_at_rank, new_queries, new_images = (np.zeros(k, np.int64) for _ in range(4))
    query_images, item_images = (
        entries.table["image_sha256"].is_valid().to_numpy().astype(np.int64)
        for entries in (corpus.queries, corpus.items)
    )
    lengths = np.zeros(len(corpus.queries), np.int64)
    query_characters, item_characters = (
        pc.fill_null(pc.utf8_length(entries.table["text"]), 0).to_numpy().astype(np.int64)
        for entries in (corpus.queries, corpus.items)
    )
    query_rank, item_rank = (
        np.full(len(entries), NEVER, np.int64) for entries in (corpus.queries, corpus.items)
    )
    for start in range(0, len(corpus.queries), QUERIES_AT_ONCE):
        check(stop)
        for question in questions.of(
            range(start, min(start + QUERIES_AT_ONCE, len(corpus.queries)))
        ):
            items = np.array([one.row for one in question.asked], np.int64)
            ranks = np.array(
                [-1 if one.rank is None else one.rank for one in question.asked], np.int64
            )
            lengths[question.row] = (ranks >= 0).sum()
            new = new_of.among(question.row, items)
            positives += int((ranks < 0).sum())
            new_positives += int((new & (ranks < 0)).sum())
            np.add.at(at_rank, ranks[ranks >= 0], 1)
            np.add.at(new_at_rank, ranks[new & (ranks >= 0)], 1)

            # A prompt has the image of its query and the image of its item.
            images = query_images[question.row] + item_images[items]
            new_positive_images += int(images[new & (ranks < 0)].sum())
            np.add.at(new_images, ranks[new & (ranks >= 0)], images[new & (ranks >= 0)])

            characters = query_characters[question.row] + item_characters[items]
            new_characters += int(characters[new].sum())

            # Only images of pairs to ask are sent.
            np.minimum.at(item_rank, items[new], np.maximum(ranks[new], 0))
            if new.any():
                query_rank[question.row] = max(0, ranks[new].min())
                new_queries[query_rank[question.row]] += 1
    pictures = _pictures((corpus.queries, query_rank), (corpus.items, item_rank))
    return PairCounts(
        len(corpus.queries),
        positives,
        new_positives,
        at_rank,
        new_at_rank,
        new_queries,
        new_images,
        new_positive_images,
        new_characters,
        lengths,
        pictures,
    )


@dataclass
class _Question:
    """A question that several rows ask."""

    rows_left: int
    scorer: int = -1
    """The scorer that asked last."""
    asked: set[int] = field(default_factory=set)
    """Items that this scorer asked about."""
    known: AbstractSet[bytes] | None = None
    """Keys of items with a verdict of an earlier job; None: not looked up yet."""


class _NewPairs:
    """Finds pairs without a verdict. A pair that several rows ask is new once for each scorer."""

    def __init__(self, corpus: Corpus, known: ScoreCache, division: Division):
        self._corpus = corpus
        self._known = known
        self._division = division
        repeated = repeated_questions(corpus)
        self._repeated = {key: _Question(rows) for key, rows in repeated.items()}
        self._keys: dict[int, bytes] = {}

    def among(self, row: int, items: Counts) -> npt.NDArray[np.bool_]:
        """Returns which items of a query make a new pair. Must be called with rows in ascending order."""
        shard = row // self._division.shard_size
        if not len(self._known) and not self._repeated and not self._division.written:
            return np.ones(len(items), bool)
        key = self._corpus.queries[row].key
        question = self._repeated.get(key) or _Question(1)
        question.rows_left -= 1
        if not question.rows_left:
            self._repeated.pop(key, None)
        if shard in self._division.written:
            return np.zeros(len(items), bool)
        return self._new(question, key, shard if self._division.apart else 0, items)

    def _new(
        self, question: _Question, key: bytes, scorer: int, items: Counts
    ) -> npt.NDArray[np.bool_]:
        if question.scorer != scorer:
            question.scorer, question.asked = scorer, set()
        if question.known is None:
            question.known = self._known.of(key).keys() if len(self._known) else set()
        have = question.known
        new = [
            item not in question.asked and not (have and self._key(item) in have)
            for item in items.tolist()
        ]
        question.asked.update(items.tolist())
        return np.array(new, bool)

    def _key(self, item: int) -> bytes:
        if item not in self._keys:
            self._keys[item] = self._corpus.items[item].key
        return self._keys[item]


def _pictures(*needed: tuple[LazyTable[Any], Counts]) -> Counts:
    """Returns the smallest rank at which each distinct image is sent, for the images that are sent."""
    first: dict[str, int] = {}
    for entries, ranks in needed:
        for picture, rank in zip(
            entries.table["image_sha256"].to_pylist(), ranks.tolist(), strict=True
        ):
            if picture and rank < first.get(picture, NEVER):
                first[picture] = rank
    return np.array(list(first.values()), np.int64)
