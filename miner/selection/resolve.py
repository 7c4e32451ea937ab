"""How the items of one query stand: each held against the positive by one judge, unless a person has said. Pure.

A cascade has a second judge's row of the same query, with those candidates that the first one was unsure of. What the
second answered is decided by its own scores, everything else by the first one's; scores of two judges are never
compared. A person's word stands above both: a match has the label 1, a negative the score 0, and neither needs a
verdict. The cut is the judge's own all the same: a judge that gave a true match 0.6 gives others of its kind no more.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, overload

import numpy as np
import numpy.typing as npt

from unijudge.formats.scores import Judged, JudgedQuery
from unijudge.formats.triples import Extra, Scale

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
OverrideVerdict = Literal["match", "negative", "drop", "known", "twin"]
"""Of a person: `match`, `negative`, `drop`. Of the corpus: `known`, an item that can be no wrong answer, such as
another row's positive of the same question; `twin`, which says the same as a more similar candidate."""
OverrideMap = Mapping[str | None, OverrideVerdict]
"""What is said about the items of one query; the word about None is about the whole row."""
RIGHT: tuple[OverrideVerdict, ...] = ("match", "known")
NEVER_NEGATIVE: tuple[OverrideVerdict, ...] = (*RIGHT, "twin")

TOLERANCE = 1e-6
"""Scores closer than this are equal: stored log-probabilities are float32, and published scores have two decimals."""


@overload
def at_most(score: float, limit: float) -> bool: ...
@overload
def at_most(score: float | Floats, limit: Floats) -> Bools: ...
def at_most(score: float | Floats, limit: float | Floats) -> bool | Bools:
    """Whether a score is at most a limit; likewise for arrays of both.

    Example:
        >>> 0.2 <= 0.3 - 0.1, at_most(0.2, 0.3 - 0.1), at_most(0.20001, 0.3 - 0.1)
        (False, True, False)
    """
    return score <= limit + TOLERANCE


@dataclass(frozen=True)
class Case:
    """One query, and all that decides about its items."""

    query: JudgedQuery
    """As the first judge saw it."""
    large: JudgedQuery | None = None
    """In a cascade, the second judge's row: some of the candidates, or none at all."""
    overrides: OverrideMap = field(default_factory=dict)
    """Verdicts on its items: a `match` is never a negative; a `negative` survives every margin, or is no positive any
    more; `drop` leaves the row out; `known` and `twin` are no candidates."""
    scales: Sequence[Scale] = (Scale(), Scale())
    """How log-odds become scores; one for each judge."""


@dataclass(frozen=True)
class Positive:
    """The positive of a query by one judge: one that a person calls a match, else the one with the best score."""

    judged: Judged
    cut: float
    """σ⁺, in (0, 1]: the judge's best score of any positive; 1 where it has none of those that a person calls one."""
    judge: int
    affirmed: bool = False
    """A person calls it a match."""

    @property
    def label(self) -> float:
        """1 where a person calls it a match, else the judge's score, which is the best one."""
        return 1.0 if self.affirmed else self.cut


@dataclass(frozen=True)
class ScoredCandidate:
    """One item that may become a negative."""

    judged: Judged
    score: float | None = None
    """In (0, 1), and 0 where a person says so; None for one that was drawn and that nobody judged."""
    positive: float | None = None
    """σ⁺ by the same judge."""
    judge: int = 0
    """0 for the first folder, 1 for the second."""
    overruled: bool = False
    """A person says that it does not answer the query."""

    def survives(self, beta: float) -> bool:
        """Whether its score is at most σ⁺ − β, or a person said so."""
        if self.overruled:
            return True
        return self.score is not None and self.positive is not None and at_most(self.score, self.positive - beta)

    @property
    def beats_positive(self) -> bool:
        """Whether the judge holds it for at least as good as the positive, and no person says otherwise."""
        if self.overruled or self.score is None or self.positive is None:
            return False
        return at_most(self.positive, self.score)


@dataclass(frozen=True)
class ResolvedQuery:
    """One query's items."""

    case: Case
    positive: Positive | None
    """By the second judge where it has one; None where none has a verdict or a person's word."""
    listed: int
    """Candidates among the first k, with a verdict or without; not those that the corpus rules out."""
    candidates: list[ScoredCandidate]
    """Those that may be chosen, by similarity."""
    matches: list[Extra]
    """Candidates that a person calls a match."""
    overridden: bool
    """A person left no positive, or wants no row of this query."""


def resolve(case: Case, k: int | None = None) -> ResolvedQuery:
    """Holds every item of a query against its positive.

    Args:
        case: The query, and all that decides about its items.
        k: Only so many candidates, the most similar ones.
    """
    query, large, overrides = case.query, case.large, case.overrides
    small_positive = _positive(query, case.scales[0], 0, overrides)
    large_positive = _positive(large, case.scales[1], 1, overrides) if large is not None else None

    # What the second judge answered is decided by its own scores.
    again: dict[str, Judged] = {}
    if large is not None and large_positive is not None:
        again = {one.item_id: one for one in large.candidates if one.log_odds is not None}

    near = [one for one in within(query.candidates, k) if overrides.get(one.item_id) not in ("known", "twin")]
    matches = [one for one in query.candidates if overrides.get(one.item_id) == "match"]
    return ResolvedQuery(
        case=case,
        positive=large_positive or small_positive,
        listed=len(near),
        candidates=list(_candidates(near, again, (small_positive, large_positive), case)),
        matches=[
            Extra(**vars(again.get(one.item_id, one)), judge=int(one.item_id in again), affirmed=True)
            for one in matches
        ],
        overridden=None in overrides or _none_left(query, overrides),
    )


def within(candidates: Iterable[Judged], k: int | None) -> Iterator[Judged]:
    """The candidates of a rank below k, or at a place below it where nobody ranked them; all for None."""
    for place, one in enumerate(candidates):
        if k is None or (place if one.rank is None else one.rank) < k:
            yield one


def _none_left(query: JudgedQuery, overrides: OverrideMap) -> bool:
    return bool(query.positives) and all(overrides.get(one.item_id) == "negative" for one in query.positives)


def _positive(row: JudgedQuery, scale: Scale, judge: int, overrides: OverrideMap) -> Positive | None:
    left = [one for one in row.positives if overrides.get(one.item_id) != "negative"]
    scores = {one.item_id: scale.score(one) for one in left if one.log_odds is not None}
    cut = max(scores.values(), default=1.0)
    affirmed = [one for one in left if overrides.get(one.item_id) == "match"]
    # Of several the best one by the judge; among those that a person affirms, one without a verdict comes last.
    chosen = max(
        affirmed or [one for one in left if one.item_id in scores],
        key=lambda one: scores.get(one.item_id, -1.0),
        default=None,
    )
    return None if chosen is None else Positive(chosen, cut, judge, affirmed=bool(affirmed))


def _candidates(
    near: Iterable[Judged],
    again: Mapping[str, Judged],
    positives: Sequence[Positive | None],
    case: Case,
) -> Iterator[ScoredCandidate]:
    for one in near:
        word, judge = case.overrides.get(one.item_id), int(one.item_id in again)
        judged, positive = again.get(one.item_id, one), positives[judge]
        cut = None if positive is None else positive.cut
        if word == "negative":
            yield ScoredCandidate(judged, 0.0, cut, judge, overruled=True)
        elif judged.log_odds is not None and cut is not None and word not in NEVER_NEGATIVE:
            yield ScoredCandidate(judged, case.scales[judge].score(judged), cut, judge)
