"""Resolves the items of one query: compares each candidate with the positive by one judge, or by an override. Pure.

In a cascade, a second judge scores the candidates near the cut of the first judge. Its scores decide about the
candidates for which it has a verdict, and the first judge's scores decide about all others. Scores of two judges are
never compared.

Overrides by a person take precedence over both judges: a match gets the label 1 and a negative the score 0, with or
without a verdict. The cut is always the judge's score: a judge that gives a true match 0.6 scores similar matches no
higher.
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
"""A person decides `match`, `negative` or `drop`. The corpus decides `known` and `twin`. `known`: the item cannot be a
wrong answer, for example because it is the positive of another row with the same question. `twin`: the item has the
same content as a more similar candidate."""
OverrideMap = Mapping[str | None, OverrideVerdict]
"""Item id → verdict, for the items of one query. The key None stands for the whole row."""
RIGHT: tuple[OverrideVerdict, ...] = ("match", "known")
NEVER_NEGATIVE: tuple[OverrideVerdict, ...] = (*RIGHT, "twin")

TOLERANCE = 1e-6
"""Scores closer than this count as equal, because stored log-probabilities are float32 and published scores have two
decimals."""


@overload
def at_most(score: float, limit: float) -> bool: ...
@overload
def at_most(score: float | Floats, limit: Floats) -> Bools: ...
def at_most(score: float | Floats, limit: float | Floats) -> bool | Bools:
    """Returns whether a score is at most a limit, up to `TOLERANCE`. Also works elementwise on arrays.

    Example:
        >>> 0.2 <= 0.3 - 0.1, at_most(0.2, 0.3 - 0.1), at_most(0.20001, 0.3 - 0.1)
        (False, True, False)
    """
    return score <= limit + TOLERANCE


@dataclass(frozen=True)
class Case:
    """One query with its scores and overrides."""

    query: JudgedQuery
    """The query with the first judge's scores."""
    large: JudgedQuery | None = None
    """In a cascade, the query with the second judge's scores of some or no candidates."""
    overrides: OverrideMap = field(default_factory=dict)
    """The verdicts about the query's items. A `match` is never a negative. A candidate that is `negative` survives
    every margin, and a positive that is `negative` is no longer a positive. `drop` leaves the row out. `known` and
    `twin` items are not candidates."""
    scales: Sequence[Scale] = (Scale(), Scale())
    """The scales that turn log-odds into scores, one for each judge."""


@dataclass(frozen=True)
class Positive:
    """The positive of a query by one judge: a positive that a person marked as a match, or else the best by score."""

    judged: Judged
    cut: float
    """σ⁺, in (0, 1]: the judge's best score of any positive. 1 if all positives lack a verdict, but a person marked one
    as a match."""
    judge: int
    """Index of the judge: 0 for the first folder, 1 for the second."""
    affirmed: bool = False
    """Whether a person marked the positive as a match."""

    @property
    def label(self) -> float:
        """The label: 1 if a person marked the positive as a match, or else the judge's best score."""
        return 1.0 if self.affirmed else self.cut


@dataclass(frozen=True)
class ScoredCandidate:
    """One item that may become a negative."""

    judged: Judged
    score: float | None = None
    """The score, in (0, 1). 0 if a person marked the item as a negative, None for a drawn item without a verdict."""
    positive: float | None = None
    """σ⁺ by the judge of the score."""
    judge: int = 0
    """Index of the judge: 0 for the first folder, 1 for the second."""
    overruled: bool = False
    """Whether a person marked the item as a negative."""

    def survives(self, beta: float) -> bool:
        """Returns whether the score is at most σ⁺ − β, or a person marked the item as a negative."""
        if self.overruled:
            return True
        if self.score is None or self.positive is None:
            return False
        return at_most(self.score, self.positive - beta)

    @property
    def beats_positive(self) -> bool:
        """Whether the score is at least the positive's score, and no person marked the item as a negative."""
        if self.overruled or self.score is None or self.positive is None:
            return False
        return at_most(self.positive, self.score)


@dataclass(frozen=True)
class ResolvedQuery:
    """The resolved items of one query."""

    case: Case
    positive: Positive | None
    """The positive by the second judge if it has one, or else by the first judge. None if no positive has a verdict or
    an override."""
    listed: int
    """Number of candidates among the first k, with or without a verdict, except `known` and `twin` items."""
    candidates: list[ScoredCandidate]
    """The candidates that may be chosen, sorted by similarity."""
    matches: list[Extra]
    """The candidates that a person marked as a match."""
    overridden: bool
    """Whether a person marked all positives as negatives, or dropped the row."""


def resolve(case: Case, k: int | None = None) -> ResolvedQuery:
    """Finds the positive of a query, and compares every candidate with it.

    Args:
        case: The query with its scores and overrides.
        k: Number of candidates to use, the most similar first. By default all are used.
    """
    query, large, overrides = case.query, case.large, case.overrides
    small_positive = _positive(query, case.scales[0], 0, overrides)
    large_positive = _positive(large, case.scales[1], 1, overrides) if large is not None else None

    # Candidates with a verdict of the second judge are decided by its scores.
    by_large: dict[str, Judged] = {}
    if large is not None and large_positive is not None:
        by_large = {
            judged.item_id: judged for judged in large.candidates if judged.log_odds is not None
        }

    near = [
        judged
        for judged in within(query.candidates, k)
        if overrides.get(judged.item_id) not in ("known", "twin")
    ]
    matches = [
        Extra(
            **vars(by_large.get(judged.item_id, judged)),
            judge=int(judged.item_id in by_large),
            affirmed=True,
        )
        for judged in query.candidates
        if overrides.get(judged.item_id) == "match"
    ]
    return ResolvedQuery(
        case=case,
        positive=large_positive or small_positive,
        listed=len(near),
        candidates=list(_candidates(near, by_large, (small_positive, large_positive), case)),
        matches=matches,
        overridden=None in overrides or _none_left(query, overrides),
    )


def within(candidates: Iterable[Judged], k: int | None) -> Iterator[Judged]:
    """Yields the candidates with a rank below k, or all if k is None. Without a rank, a candidate's index counts."""
    for index, judged in enumerate(candidates):
        rank = index if judged.rank is None else judged.rank
        if k is None or rank < k:
            yield judged


def _none_left(query: JudgedQuery, overrides: OverrideMap) -> bool:
    return bool(query.positives) and all(
        overrides.get(judged.item_id) == "negative" for judged in query.positives
    )


def _positive(
    row: JudgedQuery, scale: Scale, judge: int, overrides: OverrideMap
) -> Positive | None:
    """Returns the positive of a query by one judge, or None if no positive has a verdict or an override."""
    left = [judged for judged in row.positives if overrides.get(judged.item_id) != "negative"]
    scores = {judged.item_id: scale.score(judged) for judged in left if judged.log_odds is not None}
    cut = max(scores.values(), default=1.0)

    # A positive that a person marked as a match is preferred, then the best score. Without a verdict it comes last.
    affirmed = [judged for judged in left if overrides.get(judged.item_id) == "match"]
    eligible = affirmed or [judged for judged in left if judged.item_id in scores]
    if not eligible:
        return None
    chosen = max(eligible, key=lambda judged: scores.get(judged.item_id, -1.0))
    return Positive(chosen, cut, judge, affirmed=bool(affirmed))


def _candidates(
    near: Iterable[Judged],
    by_large: Mapping[str, Judged],
    positives: Sequence[Positive | None],
    case: Case,
) -> Iterator[ScoredCandidate]:
    """Yields the candidates that may be chosen, each with the scores of one judge."""
    for by_small in near:
        judge = int(by_small.item_id in by_large)
        judged, positive = by_large.get(by_small.item_id, by_small), positives[judge]
        cut = None if positive is None else positive.cut
        verdict = case.overrides.get(by_small.item_id)
        if verdict == "negative":
            yield ScoredCandidate(judged, 0.0, cut, judge, overruled=True)
        elif judged.log_odds is not None and cut is not None and verdict not in NEVER_NEGATIVE:
            yield ScoredCandidate(judged, case.scales[judge].score(judged), cut, judge)
