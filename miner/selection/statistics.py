"""What selections are compared by: counts that add up while rows stream."""

from collections import Counter
from dataclasses import dataclass, field

from miner.selection.negatives import SelectionOutcome

MOST = 0.9
"""Of the rows: a number of negatives that so many have is worth a hint."""


def had_by_most(distinct: Counter[int]) -> int:
    """The largest number of distinct negatives that at least nine rows in ten have.

    Args:
        distinct: Number of distinct negatives → how many rows have it.

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

    def count(self, choice: SelectionOutcome, stored: int) -> None:
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
