"""Chooses hard negatives by judge scores: a false-negative filter, and a walk through the survivors. Pure.

The method is that of UniME-V2 (arXiv 2510.13515). A candidate counts as a false negative if its score exceeds the
positive's score minus β. From the rest, negatives are taken in strides, so that they are not all similar.
`miner/selection/resolve.py` combines the scores of two judges and the overrides of a person.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, cycle, islice
from typing import Literal, TypeVar

from miner.selection.resolve import (
    RIGHT,
    Case,
    OverrideMap,
    Positive,
    ResolvedQuery,
    ScoredCandidate,
    at_most,
    resolve,
)
from miner.selection.settings import Selection
from unijudge.formats.scores import Judged
from unijudge.formats.triples import Extra, Negative, Scale, Triple

T = TypeVar("T")
PLAIN = Scale()


@dataclass(frozen=True)
class Rule:
    """The rule by which negatives are chosen from one query's candidates."""

    walk: Literal["cyclic", "first", "random"]
    betas: tuple[float, ...] = ()
    """Margins to try in turn; empty if scores are ignored."""
    fallback: Literal["drop", "random"] = "drop"
    """The action if no candidate survives. `drop`: leave the row out. `random`: draw from all candidates, as the paper
    does."""


PRESETS = {
    # The released scores fit β = 0.1, which is relaxed only if no candidate survives. Fallback rows are left out,
    # because a teacher's score of 1 for a random negative would push the positive away.
    "unime-v2": Rule(walk="cyclic", betas=(0.1, 0.01, 0.001)),
    "paper": Rule(walk="cyclic", betas=(0.01,), fallback="random"),
    "topk": Rule(walk="first"),
    "random": Rule(walk="random"),
    "cyclic": Rule(walk="cyclic"),
}


@dataclass(frozen=True)
class SelectionOutcome:
    """The outcome of the selection for one query."""

    resolved: ResolvedQuery = field(compare=False)
    triple: Triple | None
    reason: Literal["kept", "unjudged", "no candidate", "no survivor", "suspect", "override"]
    candidates: int = 0
    """Number of candidates among the first k, with or without a verdict."""
    survivors: int = 0
    """Number of candidates that the filter keeps."""
    dropped: int = 0
    """Number of candidates that the filter drops as false negatives."""
    suspect: bool = False
    """Whether the positive's score is below `suspect_below`."""
    tie: bool = False
    """Whether two different negatives of the row have exactly the same score."""
    picked: Sequence[ScoredCandidate] = ()
    """The row's distinct negatives."""


def rule_of(settings: Selection) -> Rule:
    """Returns the preset's rule, with the margins of the settings if they are given."""
    rule = PRESETS[settings.preset]
    if settings.betas is None or not rule.betas:
        return rule
    return replace(rule, betas=settings.betas)


def select_negatives(
    case: Case, settings: Selection, *, drawn: Sequence[Judged] = ()
) -> SelectionOutcome:
    """Chooses the negatives of one query.

    If a query has several positives, σ⁺ is the highest of their scores. The row gets the positive with that score,
    unless a person marked a different positive as a match.

    Args:
        case: The query with its scores and overrides.
        settings: The preset, margins, stride and number of negatives.
        drawn: Items drawn from the whole pool. The preset `random` uses them instead of the candidates.
    """
    resolved = resolve(case, settings.k)
    if resolved.overridden:
        return SelectionOutcome(resolved, None, "override", resolved.listed)
    if resolved.positive is None:
        return SelectionOutcome(resolved, None, "unjudged", resolved.listed)
    suspect = not at_most(settings.suspect_below, resolved.positive.label)
    choice = SelectionOutcome(resolved, None, "suspect", resolved.listed, suspect=suspect)
    if suspect and settings.suspect_action == "leave_out":
        return choice
    pool: Sequence[ScoredCandidate] = resolved.candidates
    if rule_of(settings).walk == "random":
        allowed = [judged for judged in drawn if case.overrides.get(judged.item_id) not in RIGHT]
        pool = [_drawn(judged, case.overrides) for judged in allowed]
    return _from_pool(pool, resolved.positive, settings, choice)


def survivors(
    candidates: Sequence[ScoredCandidate], betas: Sequence[float]
) -> tuple[float, list[ScoredCandidate]]:
    """Returns the candidates with score ≤ σ⁺ − β, for the first β with at least one such candidate.

    Args:
        candidates: Candidates with verdicts.
        betas: Margins to try in turn.

    Returns:
        The last β that was tried, and the survivors in the given order; empty if no β leaves a survivor.

    Source:
        UniME-V2, section on hard negative mining: α = σ⁺ − β.
    """
    for beta in betas:
        kept = [candidate for candidate in candidates if candidate.survives(beta)]
        if kept:
            return beta, kept
    return betas[-1], []


def strided(ranked: Sequence[T], stride: int) -> list[T]:
    """Returns all elements in the order of a walk in steps of `stride`.

    When the walk reaches the end, it restarts one element after its last start.

    Example:
        >>> strided(range(7), 3)
        [0, 3, 6, 1, 4, 2, 5]
    """
    return list(chain.from_iterable(ranked[offset::stride] for offset in range(stride)))


def score_of(judged: Judged) -> float:
    """Returns the semantic matching score of a judged pair, in (0, 1), on the default `Scale`.

    Raises:
        ValueError: The pair has no verdict.
    """
    return PLAIN.score(judged)


def fallback_places(settings: Selection, query_id: str, size: int) -> list[int]:
    """Draws the indexes of the negatives among `size` candidates, for the paper's fallback."""
    dice = random.Random(f"{settings.seed}/{query_id}")  # noqa: S311  reproducible, not secret
    return dice.sample(range(size), min(settings.num_negatives, size))


def _drawn(judged: Judged, overrides: OverrideMap) -> ScoredCandidate:
    overruled = overrides.get(judged.item_id) == "negative"
    return ScoredCandidate(judged, score=0.0 if overruled else None, overruled=overruled)


def _from_pool(
    pool: Sequence[ScoredCandidate],
    positive: Positive,
    settings: Selection,
    choice: SelectionOutcome,
) -> SelectionOutcome:
    """Filters the candidates of a query, and fills its row with negatives."""
    rule, query_id = rule_of(settings), choice.resolved.case.query.query_id
    if not pool:
        return replace(choice, reason="no candidate")

    # The filter drops likely false negatives. Presets without margins keep all candidates.
    beta: float | None = None
    kept = pool
    if rule.betas:
        beta, kept = survivors(pool, rule.betas)
    choice = replace(choice, survivors=len(kept), dropped=len(pool) - len(kept))
    if not kept and rule.fallback == "drop":
        return replace(choice, reason="no survivor")

    picked = _picked(query_id, pool, kept, rule, settings)
    negatives = _filled(picked, settings.num_negatives, beta if kept else None, fallback=not kept)
    triple = _triple(choice.resolved, positive, negatives, settings, suspect=choice.suspect)
    scores = [candidate.score for candidate in picked if candidate.score is not None]
    has_tie = len(set(scores)) < len(scores)
    return replace(choice, triple=triple, reason="kept", tie=has_tie, picked=picked)


def _picked(
    query_id: str,
    pool: Sequence[ScoredCandidate],
    kept: Sequence[ScoredCandidate],
    rule: Rule,
    settings: Selection,
) -> list[ScoredCandidate]:
    if not kept:
        return [pool[place] for place in fallback_places(settings, query_id, len(pool))]
    order = strided(kept, settings.stride) if rule.walk == "cyclic" else kept
    return list(order[: settings.num_negatives])


def _filled(
    picked: Sequence[ScoredCandidate], stored: int, beta: float | None, *, fallback: bool
) -> list[Negative]:
    """Returns `stored` negatives. If fewer were picked, they are repeated, and the repeats are marked as duplicates."""
    return [
        Negative(
            **vars(candidate.judged),
            beta=beta,
            duplicate=index >= len(picked),
            fallback=fallback,
            judge=candidate.judge,
            overruled=candidate.overruled,
        )
        for index, candidate in enumerate(islice(cycle(picked), stored))
    ]


def _triple(
    resolved: ResolvedQuery,
    positive: Positive,
    negatives: list[Negative],
    settings: Selection,
    *,
    suspect: bool,
) -> Triple:
    """Returns the training row of a query."""
    query = resolved.case.query

    # Candidates that beat the positive are offered as further positives.
    extra_positives = list(resolved.matches)
    if settings.extra_positives:
        taken = {negative.item_id for negative in negatives}
        extra_positives += [
            Extra(**vars(candidate.judged), judge=candidate.judge)
            for candidate in resolved.candidates
            if candidate.beats_positive and candidate.judged.item_id not in taken
        ]

    weight = 1.0
    if suspect and settings.suspect_action == "down_weight":
        weight = positive.label / settings.suspect_below
    return Triple(
        query_id=query.query_id,
        subset=query.subset,
        positive=positive.judged,
        negatives=negatives,
        extra_positives=extra_positives,
        suspect=suspect,
        weight=weight,
        positive_judge=positive.judge,
        positive_affirmed=positive.affirmed,
    )
