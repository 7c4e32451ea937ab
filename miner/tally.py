"""How many pairs a job will ask about, for every k up to its own: counted, not estimated.

Letters: K candidates of a query.
"""

import threading
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from miner.known import KnownScores
from miner.pools import repeated_questions
from miner.questions import Questions
from miner.stopping import check
from unijudge.corpus import Corpus

QUERIES_AT_ONCE = 4096
NEVER = np.iinfo(np.int32).max

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PairTally:
    """Pairs of a job by the rank of their candidate; a smaller k has the pairs of smaller ranks."""

    queries: int
    positives: int
    new_positives: int
    """Of these, pairs that nobody scored."""
    at_rank_K: Counts
    """Pairs whose candidate stands at each rank."""
    new_at_rank_K: Counts
    """Of these, pairs that nobody scored, each distinct one once."""
    new_queries_at_rank_K: Counts
    """Queries by the rank of the first of their pairs that nobody scored; 0 for a positive."""
    candidates_Q: Counts
    """How many candidates each query has."""
    picture_rank: Counts
    """For each distinct picture, the smallest rank at which it is needed; 0 for those of queries and positives."""

    @property
    def k(self) -> int:
        """The largest k that this tally knows."""
        return len(self.at_rank_K)

    def pairs(self, k: int) -> int:
        """Of the job, with its first k candidates."""
        return self.positives + int(self.at_rank_K[:k].sum())

    def to_ask(self, k: int) -> int:
        """Pairs that nobody scored."""
        return self.new_positives + int(self.new_at_rank_K[:k].sum())

    def asking(self, k: int) -> int:
        """Queries of which at least one pair will be asked."""
        return int(self.new_queries_at_rank_K[: max(1, k)].sum())

    def pictures(self, k: int) -> int:
        """Distinct ones."""
        return int((self.picture_rank < max(1, k)).sum())

    def underfilled(self, k: int) -> int:
        """Queries with fewer than k candidates."""
        return int((self.candidates_Q < k).sum())


def tally_pairs(
    corpus: Corpus, questions: Questions, known: KnownScores, k: int, stop: threading.Event | None = None
) -> PairTally:
    """Goes through all questions of a job.

    Args:
        corpus: Of the job.
        questions: What it will ask.
        known: What others scored.
        k: The job's own.
        stop: Ends the count early.

    Raises:
        Stopped: `stop` was set meanwhile.
    """
    new_of = _NewPairs(corpus, known)
    positives = new_positives = 0
    at_rank, new_at_rank, new_queries = (np.zeros(k, np.int64) for _ in range(3))
    lengths = np.zeros(len(corpus.queries), np.int64)
    item_rank = np.full(len(corpus.items), NEVER, np.int64)
    for start in range(0, len(corpus.queries), QUERIES_AT_ONCE):
        check(stop)
        for question in questions.of(range(start, min(start + QUERIES_AT_ONCE, len(corpus.queries)))):
            items = np.array([one.row for one in question.asked], np.int64)
            ranks = np.array([-1 if one.rank is None else one.rank for one in question.asked], np.int64)
            np.minimum.at(item_rank, items, np.maximum(ranks, 0))
            lengths[question.row] = (ranks >= 0).sum()
            new = new_of.among(question.row, items)
            positives += int((ranks < 0).sum())
            new_positives += int((new & (ranks < 0)).sum())
            np.add.at(at_rank, ranks[ranks >= 0], 1)
            np.add.at(new_at_rank, ranks[new & (ranks >= 0)], 1)
            if new.any():
                new_queries[max(0, ranks[new].min())] += 1
    return PairTally(
        len(corpus.queries), positives, new_positives, at_rank, new_at_rank, new_queries, lengths,
        _pictures(corpus, item_rank),
    )  # fmt: skip


class _NewPairs:
    """Tells pairs that nobody scored, each distinct one once."""

    def __init__(self, corpus: Corpus, known: KnownScores):
        self._corpus, self._known = corpus, known
        self._asked: dict[bytes, set[int]] = {key: set() for key in repeated_questions(corpus)}
        """Of questions that several rows ask, the items that a row before asked about."""
        self._keys: dict[int, bytes] = {}

    def among(self, row: int, items: Counts) -> npt.NDArray[np.bool_]:
        """Which of a query's items make a new pair; only what may be known is looked up."""
        if not len(self._known) and not self._asked:
            return np.ones(len(items), bool)
        key = self._corpus.queries[row].key
        have = self._known.of(key) if len(self._known) else {}
        mine = self._asked.get(key)
        if not have and mine is None:
            return np.ones(len(items), bool)
        before = mine or ()
        new = [item not in before and not (have and self._key(item) in have) for item in items.tolist()]
        if mine is not None:
            mine.update(items.tolist())
        return np.array(new, bool)

    def _key(self, item: int) -> bytes:
        if item not in self._keys:
            self._keys[item] = self._corpus.items[item].key
        return self._keys[item]


def _pictures(corpus: Corpus, item_rank: Counts) -> Counts:
    """The smallest rank at which each distinct picture is needed."""
    needed: dict[str, int] = dict.fromkeys(corpus.queries.table["image_sha256"].unique().to_pylist(), 0)
    for picture, rank in zip(corpus.items.table["image_sha256"].to_pylist(), item_rank.tolist(), strict=True):
        if picture and rank < needed.get(picture, NEVER):
            needed[picture] = rank
    needed.pop(None, None)  # type: ignore[call-overload]  # the queries without one
    return np.array(list(needed.values()), np.int64)
