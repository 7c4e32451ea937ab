"""Explains the outcome of a selection for each item of a query in words. Pure.

This module decides nothing. It reads the outcome of `select_negatives`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from miner.selection.negatives import SelectionOutcome, rule_of, survivors
from miner.selection.resolve import (
    NEVER_NEGATIVE,
    Case,
    OverrideVerdict,
    ResolvedQuery,
    ScoredCandidate,
    at_most,
    within,
)
from miner.selection.settings import Selection
from unijudge.formats.scores import Judged
from unijudge.formats.triples import Scale

Fate = Literal["chosen", "kept", "dropped", "error", "positive", "answer"]
View = Literal[
    "suspected false negatives", "suspect positives", "under-filled", "left out", "ties", "errors"
]
RULED_OUT: dict[OverrideVerdict | None, str] = {
    "match": "marked as a match by a person, so never a negative",
    "known": "the corpus knows this item as an answer to the question, or as the question's image, so never a negative",
    "twin": "duplicate of a more similar candidate",
}
VIEWS: tuple[View, ...] = get_args(View)


@dataclass(frozen=True)
class Explained:
    """The outcome for one item, and its reason."""

    judged: Judged
    score: float | None
    """The judge's score, in (0, 1); None without a verdict."""
    fate: Fate
    """The outcome. `chosen`: a negative of the row. `kept`: survived the filter, but not chosen. `dropped`: a likely
    false negative. `error`: no verdict. `positive`: a positive of the row. `answer`: never a negative, because of an
    override or a label, or because the item is a duplicate of another candidate."""
    reason: str
    alpha: float | None = None
    """The cut σ⁺ − β by the judge of the score; None if the score was not compared."""


def views_of(choice: SelectionOutcome, stored: int) -> list[View]:
    """Returns the views in which the page shows a row, in the order of `VIEWS`.

    Args:
        choice: The outcome of the selection for a query.
        stored: Number of negatives that a row should have.
    """
    query = choice.resolved.case.query
    distinct = 0
    if choice.triple is not None:
        distinct = len({negative.item_id for negative in choice.triple.negatives})
    applies: dict[View, bool] = {
        "suspected false negatives": choice.dropped > 0,
        "suspect positives": choice.suspect,
        "under-filled": choice.triple is not None and distinct < stored,
        "left out": choice.triple is None,
        "ties": choice.tie,
        "errors": any(judged.log_odds is None for judged in (*query.positives, *query.candidates)),
    }
    return [view for view in VIEWS if applies[view]]


def outcome(choice: SelectionOutcome, stored: int) -> str:
    """Returns one sentence about the outcome for a row."""
    if choice.triple is None:
        return {
            "unjudged": "left out: no positive has a verdict",
            "no candidate": "left out: no candidate may be chosen",
            "no survivor": "left out: every candidate is dropped as a false negative",
            "suspect": "left out: the positive is suspect",
            "override": "left out by a person",
        }[choice.reason]
    negatives = choice.triple.negatives
    distinct = len({negative.item_id for negative in negatives})
    sentence = _count(distinct, "negative")
    if any(negative.fallback for negative in negatives):
        return f"{sentence}, drawn at random: no candidate survived"
    if distinct < stored:
        sentence += f" of {stored}, repeated to fill the row"
    beta = negatives[0].beta
    if beta is not None:
        sentence += f", β = {beta:g}"
    return sentence


def explain(
    choice: SelectionOutcome, settings: Selection
) -> tuple[list[Explained], list[Explained]]:
    """Explains the outcome for each item of a query.

    Args:
        choice: The outcome of `select_negatives` for the query.
        settings: The settings of the selection.

    Returns:
        The positives and the candidates, both in the order of the query.
    """
    resolved, case = choice.resolved, choice.resolved.case
    query, best = case.query, resolved.positive

    # A positive's score is that of the judge that decides about the row.
    judge = 0 if best is None else best.judge
    row = case.large if judge and case.large is not None else query
    by_judge = {judged.item_id: judged for judged in row.positives}
    positives = []
    for judged in query.positives:
        scored = by_judge.get(judged.item_id, judged)
        positives.append(_positive(scored, resolved, settings, case.scales[judge]))

    # Candidates that were compared, candidates that are never negatives, and the rest.
    betas = rule_of(settings).betas
    beta = survivors(resolved.candidates, betas)[0] if best is not None and betas else None
    compared = {candidate.judged.item_id: candidate for candidate in resolved.candidates}
    near = {judged.item_id for judged in within(query.candidates, settings.k)}
    candidates = []
    for judged in query.candidates:
        verdict = case.overrides.get(judged.item_id)
        if verdict in NEVER_NEGATIVE:
            candidates.append(
                Explained(judged, _score(judged, case.scales[0]), "answer", RULED_OUT[verdict])
            )
        elif judged.item_id in compared:
            candidates.append(_candidate(compared[judged.item_id], choice, beta, betas))
        else:
            candidates.append(_not_compared(judged, judged.item_id in near, case))
    return positives, candidates


def with_difference(score: float, positive: float, beta: float) -> str:
    """Returns the decisive comparison as text, with enough digits to show that the comparison holds.

    Example:
        >>> with_difference(0.62, 0.71, 0.1), with_difference(0.61004, 0.71, 0.1)
        ('score 0.620 > 0.710 − 0.1', 'score 0.61004 > 0.71000 − 0.1')
    """
    above = not at_most(score, positive - beta)
    sign = ">" if above else "≤"
    for digits in range(3, 10):
        shown_score = round(score, digits)
        shown_cut = round(round(positive, digits) - beta, digits + 3)
        if (shown_score > shown_cut) == above:
            break
    return f"score {score:.{digits}f} {sign} {positive:.{digits}f} − {beta:g}"


def _positive(
    judged: Judged, resolved: ResolvedQuery, settings: Selection, scale: Scale
) -> Explained:
    """Explains one positive."""
    verdict, best = resolved.case.overrides.get(judged.item_id), resolved.positive
    score = _score(judged, scale)
    if verdict == "negative":
        reason = "marked as a negative by a person, so not a positive of this row"
        return Explained(judged, score, "positive", reason)
    if score is None and verdict != "match":
        return Explained(judged, None, "error", f"no verdict: {judged.error}")

    reasons = []
    if best is None or judged.item_id != best.judged.item_id:
        reasons.append("not the best of the row's positives")
    if verdict == "match":
        reasons.append("marked as a match by a person")
    elif score is not None and not at_most(settings.suspect_below, score):
        reasons.append(f"suspect: score {score:.3f} < {settings.suspect_below:g}")
    return Explained(judged, score, "positive", "; ".join(reasons) or "as labelled")


def _score(judged: Judged, scale: Scale) -> float | None:
    return None if judged.log_odds is None else scale.score(judged)


def _not_compared(judged: Judged, near: bool, case: Case) -> Explained:
    """Explains one candidate that was not compared with a positive."""
    if judged.log_odds is None:
        return Explained(judged, None, "error", f"no verdict: {judged.error}")
    score = case.scales[0].score(judged)
    if not near:
        return Explained(judged, score, "kept", "beyond the first k")
    denied = any(
        case.overrides.get(positive.item_id) == "negative" for positive in case.query.positives
    )
    cause = "no positive has a verdict"
    if denied:
        cause = "a person marked positives as negatives, and no other positive has a verdict"
    return Explained(judged, score, "kept", f"not compared: {cause}")


def _candidate(
    candidate: ScoredCandidate, choice: SelectionOutcome, beta: float | None, betas: Sequence[float]
) -> Explained:
    """Explains one candidate that may be a negative."""
    judged, positive = candidate.judged, candidate.positive
    score = _score(judged, choice.resolved.case.scales[candidate.judge])
    number = _number_in_row(judged, choice)
    chosen_or_kept: Fate = "kept" if number is None else "chosen"
    as_negative = "" if number is None else f"; negative {number}"
    if candidate.overruled:
        return Explained(
            judged, score, chosen_or_kept, f"marked as a negative by a person{as_negative}"
        )

    # Presets without margins ignore the score.
    assert score is not None and positive is not None  # noqa: S101, PT018  `resolve` keeps only such candidates
    if beta is None:
        reason = "not taken by the walk"
        if number is not None:
            reason = f"negative {number}, chosen without the judge"
        return Explained(judged, score, chosen_or_kept, reason)

    reason, alpha = with_difference(score, positive, beta), positive - beta
    if beta != betas[0]:
        reason += f" (β relaxed from {betas[0]:g})"
    if candidate.judge:
        reason += ", by the second judge"
    if candidate.survives(beta):
        return Explained(judged, score, chosen_or_kept, reason + as_negative, alpha)
    if number is None:
        return Explained(judged, score, "dropped", reason, alpha)
    return Explained(
        judged, score, "chosen", f"{reason}; but drawn at random as negative {number}", alpha
    )


def _number_in_row(judged: Judged, choice: SelectionOutcome) -> int | None:
    """Returns the number of the first negative of the row that is this item, counted from 1, or None."""
    negatives = (
        [] if choice.triple is None else [negative.item_id for negative in choice.triple.negatives]
    )
    return negatives.index(judged.item_id) + 1 if judged.item_id in negatives else None


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
