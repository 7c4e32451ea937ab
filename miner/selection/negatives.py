"""From judge scores to hard negatives: the false-negative filter, and the walk through what survives it. Pure.

The method (UniME-V2, arXiv 2510.13515): a candidate counts as a false negative when its score exceeds the positive's
minus β; of the rest, negatives are taken in strides so that they are not all alike. What two judges and a person say
about a query is put together in `miner/selection/resolve.py`.
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
    """How negatives are chosen from one query's candidates."""

    walk: Literal["cyclic", "first", "random"]
    betas: tuple[float, ...] = ()
    """Margins tried in turn; empty: no judge decides."""
    fallback: Literal["drop", "random"] = "drop"
    """When nothing survives: leave the row out, or draw from all candidates, as the paper does."""


PRESETS = {
    # The released scores fit β = 0.1, relaxed only where no candidate survives; fallback rows are left out, because a
    # teacher's score of 1 for a random negative would push the positive away.
    "unime-v2": Rule(walk="cyclic", betas=(0.1, 0.01, 0.001)),
    "paper": Rule(walk="cyclic", betas=(0.01,), fallback="random"),
    "topk": Rule(walk="first"),
    "random": Rule(walk="random"),
    "cyclic": Rule(walk="cyclic"),
}


@dataclass(frozen=True)
class SelectionOutcome:
    """What became of one query."""

    resolved: ResolvedQuery = field(compare=False)
    triple: Triple | None
    reason: Literal["kept", "unjudged", "no candidate", "no survivor", "suspect", "override"]
    candidates: int = 0
    """Among the first k, with a verdict or without."""
    survivors: int = 0
    dropped: int = 0
    """Candidates held for false negatives."""
    suspect: bool = False
    """The judge does not believe in the positive."""
    tie: bool = False
    """Two different negatives of the row have exactly the same score."""
    picked: Sequence[ScoredCandidate] = ()
    """The row's distinct negatives."""


def rule_of(settings: Selection) -> Rule:
    """The preset's rule, with the margins that the settings may give."""
    rule = PRESETS[settings.preset]
    return replace(rule, betas=settings.betas) if settings.betas is not None and rule.betas else rule


def select_negatives(case: Case, settings: Selection, *, drawn: Sequence[Judged] = ()) -> SelectionOutcome:
    """Chooses the negatives of one query.

    With several positives σ⁺ is the highest of their scores, and that positive stands in the row, unless a person
    calls another one a match.

    Args:
        case: The query, and all that decides about its items.
        settings: Preset, margins, stride, how many.
        drawn: Items drawn from the whole pool, which the preset `random` takes in the place of candidates.
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
        pool = [_drawn(one, case.overrides) for one in drawn if case.overrides.get(one.item_id) not in RIGHT]
    return _from_pool(pool, resolved.positive, settings, choice)


def survivors(candidates: Sequence[ScoredCandidate], betas: Sequence[float]) -> tuple[float, list[ScoredCandidate]]:
    """The candidates with score ≤ σ⁺ − β, at the first β at which there is any.

    Args:
        candidates: With verdicts.
        betas: Margins to try in turn.

    Returns:
        The β that was reached, and the survivors in the given order; empty when no β leaves any.

    Source:
        UniME-V2, section on hard negative mining: α = σ⁺ − β.
    """
    for beta in betas:
        kept = [candidate for candidate in candidates if candidate.survives(beta)]
        if kept:
            return beta, kept
    return betas[-1], []


def strided(ranked: Sequence[T], stride: int) -> list[T]:
    """All elements, in the order of a walk in steps of `stride` that restarts one further each time it runs out.

    Example:
        >>> strided(range(7), 3)
        [0, 3, 6, 1, 4, 2, 5]
    """
    return list(chain.from_iterable(ranked[offset::stride] for offset in range(stride)))


def score_of(judged: Judged) -> float:
    """The semantic matching score of a judged pair, in (0, 1), where no `Scale` is given.

    Raises:
        ValueError: The pair has no verdict.
    """
    return PLAIN.score(judged)


def fallback_places(settings: Selection, query_id: str, size: int) -> list[int]:
    """Which of `size` candidates the paper's fallback draws."""
    dice = random.Random(f"{settings.seed}/{query_id}")  # noqa: S311  reproducible, not secret
    return dice.sample(range(size), min(settings.num_negatives, size))


def _drawn(judged: Judged, overrides: OverrideMap) -> ScoredCandidate:
    overruled = overrides.get(judged.item_id) == "negative"
    return ScoredCandidate(judged, score=0.0 if overruled else None, overruled=overruled)


def _from_pool(
    pool: Sequence[ScoredCandidate], positive: Positive, settings: Selection, choice: SelectionOutcome
) -> SelectionOutcome:
    rule, query_id = rule_of(settings), choice.resolved.case.query.query_id
    if not pool:
        return replace(choice, reason="no candidate")
    beta, kept = survivors(pool, rule.betas) if rule.betas else (None, pool)
    choice = replace(choice, survivors=len(kept), dropped=len(pool) - len(kept))
    if not kept and rule.fallback == "drop":
        return replace(choice, reason="no survivor")
    picked = _picked(query_id, pool, kept, rule, settings)
    negatives = _filled(picked, settings.num_negatives, beta if kept else None, fallback=not kept)
    triple = _triple(choice.resolved, positive, negatives, settings, suspect=choice.suspect)
    scores = [one.score for one in picked if one.score is not None]
    return replace(choice, triple=triple, reason="kept", tie=len(set(scores)) < len(scores), picked=picked)


def _picked(
    query_id: str, pool: Sequence[ScoredCandidate], kept: Sequence[ScoredCandidate], rule: Rule, settings: Selection
) -> list[ScoredCandidate]:
    if not kept:
        return [pool[place] for place in fallback_places(settings, query_id, len(pool))]
    order = strided(kept, settings.stride) if rule.walk == "cyclic" else kept
    return list(order[: settings.num_negatives])


def _filled(picked: Sequence[ScoredCandidate], stored: int, beta: float | None, *, fallback: bool) -> list[Negative]:
    """As many negatives as a row has; those that fill it up are marked."""
    return [
        Negative(
            **vars(one.judged),
            beta=beta,
            duplicate=place >= len(picked),
            fallback=fallback,
            judge=one.judge,
            overruled=one.overruled,
        )
        for place, one in enumerate(islice(cycle(picked), stored))
    ]


def _triple(
    resolved: ResolvedQuery,
    positive: Positive,
    negatives: list[Negative],
    settings: Selection,
    *,
    suspect: bool,
) -> Triple:
    query = resolved.case.query
    taken = {negative.item_id for negative in negatives}
    better = [
        Extra(**vars(one.judged), judge=one.judge)
        for one in resolved.candidates
        if settings.extra_positives and one.beats_positive and one.judged.item_id not in taken
    ]
    lighter = suspect and settings.suspect_action == "down_weight"
    return Triple(
        query_id=query.query_id,
        subset=query.subset,
        positive=positive.judged,
        negatives=negatives,
        extra_positives=[*resolved.matches, *better],
        suspect=suspect,
        weight=positive.label / settings.suspect_below if lighter else 1.0,
        positive_judge=positive.judge,
        positive_affirmed=positive.affirmed,
    )
