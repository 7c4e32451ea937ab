"""How the items of one query stand: each held against the positive by one judge, unless a person has said. Pure.

A cascade has a second judge's row of the same query, with those candidates that the first one was unsure of. What the
second answered is decided by its own scores, everything else by the first one's; scores of two judges are never
compared. A person's word stands above both.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from unijudge.scores import Judged, JudgedQuery
from unijudge.triples import Extra, Scale

Word = Literal["match", "negative", "drop"]
Said = Mapping[str | None, Word]
"""A person's word about the items of one query; that of None is about the whole row."""
NOTHING_SAID: Said = {}


@dataclass(frozen=True)
class Positive:
    """The best positive of a query by one judge."""

    judged: Judged
    score: float
    """σ⁺, in (0, 1)."""
    judge: int


@dataclass(frozen=True)
class Scored:
    """One item that may become a negative."""

    judged: Judged
    score: float | None = None
    """In (0, 1); None for one that was drawn and that nobody judged."""
    positive: float | None = None
    """σ⁺ by the same judge."""
    judge: int = 0
    """0 for the first folder, 1 for the second."""
    overruled: bool = False
    """A person says that it does not answer the query."""

    def survives(self, beta: float) -> bool:
        """Whether its score is at most σ⁺ − β, or a person said so."""
        judged = self.score is not None and self.positive is not None and self.score <= self.positive - beta
        return self.overruled or judged

    @property
    def beats_positive(self) -> bool:
        """Whether the judge holds it for at least as good as the positive, and no person says otherwise."""
        judged = self.score is not None and self.positive is not None and self.score >= self.positive
        return judged and not self.overruled


@dataclass(frozen=True)
class Standing:
    """One query's items."""

    positive: Positive | None
    """The second judge's where it has one; None where no positive has a verdict."""
    trusted: bool
    """A person says that this positive is one."""
    listed: int
    """Candidates among the first k, with a verdict or without."""
    candidates: list[Scored]
    """Those that may be chosen, by similarity."""
    matches: list[Extra]
    """Candidates that a person calls a match."""
    overridden: bool
    """A person left no positive, or wants no row of this query."""


def stand(
    query: JudgedQuery,
    scales: Sequence[Scale],
    *,
    large: JudgedQuery | None = None,
    said: Said = NOTHING_SAID,
    k: int | None = None,
) -> Standing:
    """Holds every item of a query against its positive.

    Args:
        query: As the first judge saw it.
        scales: How log-odds become scores; one for each judge.
        large: The second judge's row: some of the candidates, or none at all.
        said: A person's word: a `match` is never a negative; a `negative` survives every margin, or is no positive any
            more; `drop` leaves the row out.
        k: Only so many candidates, the most similar ones.
    """
    small_positive = _positive(query, scales[0], 0, said)
    large_positive = _positive(large, scales[1], 1, said) if large is not None else None
    again = {one.item_id: one for one in large.candidates if one.log_odds is not None} if large is not None else {}
    if large_positive is None:
        again = {}
    near = list(within(query.candidates, k))
    positive = large_positive or small_positive
    return Standing(
        positive=positive,
        trusted=positive is not None and said.get(positive.judged.item_id) == "match",
        listed=len(near),
        candidates=list(_candidates(near, again, (small_positive, large_positive), scales, said)),
        matches=[
            Extra(**vars(again.get(one.item_id, one)), judge=int(one.item_id in again))
            for one in query.candidates
            if said.get(one.item_id) == "match"
        ],
        overridden=None in said or _none_left(query, said),
    )


def within(candidates: Iterable[Judged], k: int | None) -> Iterator[Judged]:
    """The candidates of a rank below k, or at a place below it where nobody ranked them; all for None."""
    for place, one in enumerate(candidates):
        if k is None or (place if one.rank is None else one.rank) < k:
            yield one


def _none_left(query: JudgedQuery, said: Said) -> bool:
    return bool(query.positives) and all(said.get(one.item_id) == "negative" for one in query.positives)


def _positive(row: JudgedQuery, scale: Scale, judge: int, said: Said) -> Positive | None:
    found = [
        Positive(one, scale.score(one), judge)
        for one in row.positives
        if one.log_odds is not None and said.get(one.item_id) != "negative"
    ]
    return max(found, key=lambda positive: positive.score, default=None)


def _candidates(
    near: Iterable[Judged],
    again: Mapping[str, Judged],
    positives: Sequence[Positive | None],
    scales: Sequence[Scale],
    said: Said,
) -> Iterator[Scored]:
    for one in near:
        judge = int(one.item_id in again)
        judged, positive = again.get(one.item_id, one), positives[judge]
        if judged.log_odds is not None and positive is not None and said.get(one.item_id) != "match":
            overruled = said.get(one.item_id) == "negative"
            yield Scored(judged, scales[judge].score(judged), positive.score, judge, overruled)
