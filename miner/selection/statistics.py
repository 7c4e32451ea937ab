"""The statistics by which selections are compared, counted while rows stream by."""

from collections import Counter
from dataclasses import dataclass, field

from miner.selection.negatives import SelectionOutcome

MOST = 0.9
"""Share of the rows that must have a number of distinct negatives, for a warning to name this number."""


def had_by_most(distinct: Counter[int]) -> int:
    """Returns the largest number of distinct negatives that at least nine rows in ten have.

    Args:
        distinct: Number of distinct negatives → number of rows with exactly that many.

    Example:
        >>> had_by_most(Counter({10: 5, 4: 4, 1: 1}))
        4
    """
    needed, rows = MOST * distinct.total(), 0
    for number in sorted(distinct, reverse=True):
        rows += distinct[number]
        if rows >= needed:
            return number
    return 0


@dataclass
class Statistics:
    """The counts of a selection."""

    calibrated: bool = False
    """Whether scores are probabilities, because all judges have a fitted calibration."""
    reasons: Counter[str] = field(default_factory=Counter)
    """Outcome of a query → number of queries."""
    candidates: int = 0
    survivors: int = 0
    dropped: int = 0
    suspect: int = 0
    underfilled: int = 0
    fallback: int = 0
    short: int = 0
    """Rows with fewer survivors than negatives: filled up with duplicates, drawn at random, or left out."""
    ties: int = 0
    chosen: int = 0
    scored: int = 0
    """Chosen negatives with a score."""
    score_sum: float = 0.0
    measured: int = 0
    """Chosen negatives with a similarity."""
    similarity_sum: float = 0.0

    def count(self, choice: SelectionOutcome, stored: int) -> None:
        """Adds the outcome of one query."""
        scores = [candidate.score for candidate in choice.picked if candidate.score is not None]
        known = [candidate.judged.similarity for candidate in choice.picked]
        similarities = [similarity for similarity in known if similarity is not None]
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
        """Expected share of matches among the chosen negatives: their mean score. None if no negative has a score."""
        return _ratio(self.score_sum, self.scored)

    def table(self, likeness: float | None) -> dict[str, float]:
        """Returns name → value, in the order for printing, without values that were not measured.

        Args:
            likeness: Mean similarity among a row's negatives, measured on a sample of rows.
        """
        rows = self.reasons["kept"]
        expected = "expected false negatives"
        if not self.calibrated:
            expected = "expected false negatives (at face value)"
        means = {
            "mean survivors of a row": _ratio(self.survivors, rows),
            "share of candidates dropped": _ratio(self.dropped, self.candidates),
            expected: self.score_sum if self.scored else None,
            "mean score of a negative": self.false_negative_share,
            "mean similarity of a negative": _ratio(self.similarity_sum, self.measured),
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


def _ratio(total: float, count: int) -> float | None:
    """Returns a mean or a share. None if nothing was counted."""
    return total / count if count else None
