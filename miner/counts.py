"""What selections are compared by: counts that add up while rows stream, and the likeness of a sample of rows."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from miner.select import Choice
from unijudge.corpus import Corpus
from unijudge.vectors import VectorFolder

T = TypeVar("T")
SAMPLED_ROWS = 4096


@dataclass
class Statistics:
    """What a selection did."""

    calibrated: bool = False
    """Whether scores are chances: a fitted calibration made them."""
    reasons: Counter[str] = field(default_factory=Counter)
    candidates: int = 0
    survivors: int = 0
    dropped: int = 0
    suspect: int = 0
    underfilled: int = 0
    fallback: int = 0
    short: int = 0
    """Rows with fewer survivors than a row has negatives: filled up, drawn at random, or left out."""
    ties: int = 0
    chosen: int = 0
    scored: int = 0
    """Chosen ones with a score."""
    score_sum: float = 0.0
    measured: int = 0
    """Chosen ones with a similarity."""
    similarity_sum: float = 0.0

    def count(self, choice: Choice, stored: int) -> None:
        """Adds one query."""
        scores = [one.score for one in choice.picked if one.score is not None]
        similarities = [one.judged.similarity for one in choice.picked if one.judged.similarity is not None]
        self.reasons[choice.reason] += 1
        self.candidates += choice.candidates
        self.survivors += choice.survivors
        self.dropped += choice.dropped
        self.suspect += choice.suspect
        self.ties += choice.tie
        self.underfilled += choice.reason == "kept" and len(choice.picked) < stored
        self.fallback += choice.reason == "kept" and not choice.survivors
        self.short += choice.reason in ("kept", "no survivor") and choice.survivors < stored
        self.chosen += len(choice.picked)
        self.scored += len(scores)
        self.score_sum += sum(scores)
        self.measured += len(similarities)
        self.similarity_sum += sum(similarities)

    @property
    def false_negative_share(self) -> float | None:
        """Expected share of matches among the chosen: their mean score; None where nobody judged them."""
        return self.score_sum / self.scored if self.scored else None

    def table(self, likeness: float | None) -> dict[str, float]:
        """Name → value, in the order in which they are printed; what was not measured is left out.

        Args:
            likeness: Mean similarity among a row's negatives, of a sample.
        """
        rows = self.reasons["kept"]
        means = {
            "mean survivors of a row": self.survivors / rows if rows else None,
            "share of candidates dropped": self.dropped / self.candidates if self.candidates else None,
            f"expected false negatives{'' if self.calibrated else ' (at face value)'}": (
                self.score_sum if self.scored else None
            ),
            "mean score of a negative": self.false_negative_share,
            "mean similarity of a negative": self.similarity_sum / self.measured if self.measured else None,
            "mean similarity among a row's negatives": likeness,
        }
        return {
            "queries": self.reasons.total(),
            "rows kept": rows,
            "left out, positive without verdict": self.reasons["unjudged"],
            "left out, no candidate": self.reasons["no candidate"],
            "left out, no survivor": self.reasons["no survivor"],
            "left out, suspect positive": self.reasons["suspect"],
            "left out by a person": self.reasons["override"],
            "rows filled by fallback": self.fallback,
            "rows under-filled (duplicates)": self.underfilled,
            "rows short of survivors": self.short,
            "candidates": self.candidates,
            "candidates dropped as false negatives": self.dropped,
            "suspect positives": self.suspect,
            "rows with tied negatives": self.ties,
            "negatives chosen": self.chosen,
            **{name: round(value, 4) for name, value in means.items() if value is not None},
        }


class Reservoir(Generic[T]):
    """At most `SAMPLED_ROWS` of a stream, each with the same chance; the same on every run."""

    def __init__(self, seed: int):
        """Holds nothing yet."""
        self._dice = random.Random(seed)  # noqa: S311  reproducible, not secret
        self._seen = 0
        self.held: list[T] = []

    def place(self) -> int | None:
        """Where the next one of the stream is to be held, in the place of another if need be; None: nowhere."""
        self._seen += 1
        if self._seen <= SAMPLED_ROWS:
            return self._seen - 1
        place = self._dice.randrange(self._seen)
        return place if place < SAMPLED_ROWS else None

    def add(self, value: T) -> None:
        """Takes the next one, or lets it go."""
        place = self.place()
        if place is not None:
            self.held[place : place + 1] = [value]


def likeness(corpus: Corpus, vectors: VectorFolder, rows: Sequence[Sequence[str]]) -> float | None:
    """Mean over rows of the mean cosine among a row's distinct items: how alike its negatives are.

    With n unit vectors v of sum s, the mean over the pairs is (s·s − n) / (n (n − 1)).

    Args:
        corpus: To which the items belong.
        vectors: Its embeddings; read once.
        rows: Item ids.

    Returns:
        In [−1, 1]; None where no row has two items.
    """
    places = [np.array([corpus.row_of[item] for item in dict.fromkeys(items)], np.int64) for items in rows]
    places = [row for row in places if len(row) > 1]
    if not places:
        return None
    wanted, where = np.unique(np.concatenate(places), return_inverse=True)
    found_ND = vectors.take("items", wanted)
    splits = np.split(where, np.cumsum([len(row) for row in places])[:-1])
    return float(np.mean([_mean_cosine(found_ND[row]) for row in splits]))


def _mean_cosine(vectors_ND: npt.NDArray[np.float32]) -> float:
    num = len(vectors_ND)
    return float((np.square(vectors_ND.sum(0)).sum() - num) / (num * (num - 1)))
