"""From judge scores to hard negatives: the false-negative filter, and the walk through what survives it. Pure.

The method (UniME-V2, arXiv 2510.13515): a candidate counts as a false negative when its score exceeds the positive's
minus β; of the rest, negatives are taken in strides so that they are not all alike.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, cycle, islice
from typing import Literal, TypeVar

from miner.settings import Selection
from unijudge.scores import Judged, JudgedQuery
from unijudge.triples import Negative, Triple
from unijudge.verdicts import sigmoid

T = TypeVar("T")


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
class Choice:
    """What became of one query."""

    triple: Triple | None
    reason: Literal["kept", "unjudged", "no candidate", "no survivor"]
    dropped: int = 0
    """Candidates held for false negatives."""
    suspect: bool = False
    """The judge does not believe in the positive."""
    tie: bool = False
    """Two different negatives of the row have exactly the same score."""


def rule_of(settings: Selection) -> Rule:
    """The preset's rule, with the margins that the settings may give."""
    rule = PRESETS[settings.preset]
    if settings.betas is not None and rule.betas:
        return Rule(walk=rule.walk, betas=settings.betas, fallback=rule.fallback)
    return rule


def choose(query: JudgedQuery, settings: Selection, drawn: Sequence[Judged] = ()) -> Choice:
    """Chooses the negatives of one query.

    With several positives σ⁺ is the highest of their scores, and that positive stands in the row.

    Args:
        query: As it was judged.
        settings: Preset, margins, stride, how many.
        drawn: Items drawn from the whole pool, which the preset `random` takes in the place of candidates.
    """
    rule = rule_of(settings)
    positives = [positive for positive in query.positives if positive.log_odds is not None]
    candidates = [candidate for candidate in query.candidates if candidate.log_odds is not None]
    if not positives:
        return Choice(None, "unjudged")
    score = partial(score_of, divisor=settings.log_odds_divisor)
    best = max(positives, key=score)
    suspect = score(best) < settings.suspect_below
    pool = list(drawn) if rule.walk == "random" else candidates
    if not pool:
        return Choice(None, "no candidate", suspect=suspect)
    beta, kept = survivors(candidates, score(best), rule.betas, score) if rule.betas else (None, pool)
    dropped = len(pool) - len(kept)
    fallback = not kept
    if fallback and rule.fallback == "drop":
        return Choice(None, "no survivor", dropped, suspect)
    if fallback:
        dice = random.Random(f"{settings.seed}/{query.query_id}")  # noqa: S311  reproducible, not secret
        picked = dice.sample(pool, min(settings.stored, len(pool)))
    else:
        order = strided(kept, settings.stride) if rule.walk == "cyclic" else kept
        picked = order[: settings.stored]
    negatives = [
        Negative(**vars(judged), beta=None if fallback else beta, duplicate=index >= len(picked), fallback=fallback)
        for index, judged in enumerate(islice(cycle(picked), settings.stored))
    ]
    scores = [score(judged) for judged in picked if judged.log_odds is not None]
    triple = Triple(query.query_id, query.subset, best, negatives)
    return Choice(triple, "kept", dropped, suspect, tie=len(set(scores)) < len(scores))


def survivors(
    candidates: Sequence[Judged], positive_score: float, betas: Sequence[float], score: Callable[[Judged], float]
) -> tuple[float, list[Judged]]:
    """The candidates with score ≤ σ⁺ − β, at the first β at which there is any.

    Args:
        candidates: With verdicts.
        positive_score: σ⁺, in (0, 1).
        betas: Margins to try in turn.
        score: Of a candidate, in (0, 1).

    Returns:
        The β that was reached, and the survivors in the given order; empty when no β leaves any.

    Source:
        UniME-V2, section on hard negative mining: α = σ⁺ − β.
    """
    for beta in betas:
        kept = [candidate for candidate in candidates if score(candidate) <= positive_score - beta]
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


def score_of(judged: Judged, divisor: float = 1.0) -> float:
    """The semantic matching score of a judged pair, sigmoid((ln P(Yes) − ln P(No)) / divisor).

    Raises:
        ValueError: The pair has no verdict.
    """
    if judged.log_odds is None:
        raise ValueError(f"item {judged.item_id!r} has no verdict: {judged.error}")
    return sigmoid(judged.log_odds / divisor)
