"""How many pairs a job will ask about, for every k up to its own: counted, not estimated.

Letters: K candidates of a query.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from miner.known import KnownScores
from miner.pools import repeated_questions
from miner.questions import Questions
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

    def pictures(self, k: int) -> int:
        """Distinct ones."""
        return int((self.picture_rank < max(1, k)).sum())

    def underfilled(self, k: int) -> int:
        """Queries with fewer than k candidates."""
        return int((self.candidates_Q < k).sum())


def tally_pairs(corpus: Corpus, questions: Questions, known: KnownScores, k: int) -> PairTally:
    """Goes through all questions of a job.

    Args:
        corpus: Of the job.
        questions: What it will ask.
        known: What others scored.
        k: The job's own.
    """
    repeated = repeated_questions(corpus)
    anything_known = len(known) > 0
    asked: dict[bytes, set[int]] = {key: set() for key in repeated}
    positives = new_positives = 0
    at_rank, new_at_rank = np.zeros(k, np.int64), np.zeros(k, np.int64)
    lengths = np.zeros(len(corpus.queries), np.int64)
    item_rank = np.full(len(corpus.items), NEVER, np.int64)
    for start in range(0, len(corpus.queries), QUERIES_AT_ONCE):
        for question in questions.of(range(start, min(start + QUERIES_AT_ONCE, len(corpus.queries)))):
            items = np.array([one.row for one in question.asked], np.int64)
            ranks = np.array([-1 if one.rank is None else one.rank for one in question.asked], np.int64)
            np.minimum.at(item_rank, items, np.maximum(ranks, 0))
            lengths[question.row] = (ranks >= 0).sum()
            new = np.ones(len(items), bool)
            if anything_known or repeated:
                key = corpus.queries[question.row].key
                have = known.of(key)
                mine = asked.get(key, set())
                new = np.array([row not in mine and corpus.items[row].key not in have for row in items.tolist()], bool)
                if key in asked:
                    mine |= set(items.tolist())
            positives += int((ranks < 0).sum())
            new_positives += int((new & (ranks < 0)).sum())
            np.add.at(at_rank, ranks[ranks >= 0], 1)
            np.add.at(new_at_rank, ranks[new & (ranks >= 0)], 1)
    return PairTally(
        len(corpus.queries), positives, new_positives, at_rank, new_at_rank, lengths, _pictures(corpus, item_rank)
    )


def _pictures(corpus: Corpus, item_rank: Counts) -> Counts:
    """The smallest rank at which each distinct picture is needed."""
    needed: dict[str, int] = dict.fromkeys(corpus.queries.table["image_sha256"].unique().to_pylist(), 0)
    for picture, rank in zip(corpus.items.table["image_sha256"].to_pylist(), item_rank.tolist(), strict=True):
        if picture and rank < needed.get(picture, NEVER):
            needed[picture] = rank
    needed.pop(None, None)  # type: ignore[call-overload]  # the queries without one
    return np.array(list(needed.values()), np.int64)
