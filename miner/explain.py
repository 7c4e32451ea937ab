"""Says in words what selection made of each candidate of a query. Pure.

It decides nothing: `choose` does, and this reads its choice.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

from miner.select import Choice, Rule, rule_of, score_of, survivors
from miner.settings import Selection
from unijudge.scores import Judged, JudgedQuery

Fate = Literal["chosen", "kept", "dropped", "error", "positive"]
View = Literal["suspected false negatives", "suspect positives", "under-filled", "left out", "ties", "errors"]
VIEWS: tuple[View, ...] = get_args(View)


@dataclass(frozen=True)
class Explained:
    """What became of one item, and why."""

    judged: Judged
    score: float | None
    """The judge's, in (0, 1); None where there is no verdict."""
    fate: Fate
    """`chosen` as a negative; `kept` by the filter, but not taken; `dropped` as a false negative; `error`: no
    verdict; `positive`."""
    reason: str


def views_of(query: JudgedQuery, choice: Choice, stored: int) -> list[View]:
    """For what a person may want to look at this row, in the order of `VIEWS`.

    Args:
        query: As it was judged.
        choice: What selection made of it.
        stored: Negatives that a row should have.
    """
    distinct = 0 if choice.triple is None else len({negative.item_id for negative in choice.triple.negatives})
    applies: dict[View, bool] = {
        "suspected false negatives": choice.dropped > 0,
        "suspect positives": choice.suspect,
        "under-filled": choice.triple is not None and distinct < stored,
        "left out": choice.triple is None,
        "ties": choice.tie,
        "errors": any(judged.log_odds is None for judged in (*query.positives, *query.candidates)),
    }
    return [view for view in VIEWS if applies[view]]


def outcome(choice: Choice, stored: int) -> str:
    """One sentence about a row."""
    if choice.triple is None:
        return {
            "unjudged": "left out: no positive has a verdict",
            "no candidate": "left out: no candidate has a verdict",
            "no survivor": "left out: every candidate is dropped as a false negative",
        }[choice.reason]
    negatives = choice.triple.negatives
    distinct = len({negative.item_id for negative in negatives})
    if any(negative.fallback for negative in negatives):
        return f"{_count(distinct, 'negative')}, drawn at random: nothing survived"
    filled = f" of {stored}, repeated to fill the row" if distinct < stored else ""
    beta = negatives[0].beta
    return f"{_count(distinct, 'negative')}{filled}" + ("" if beta is None else f", β = {beta:g}")


def explain(
    query: JudgedQuery, choice: Choice, settings: Selection
) -> tuple[list[Explained], list[Explained], float | None]:
    """What became of each item of a query.

    Args:
        query: As it was judged.
        choice: What `choose` made of it.
        settings: With which it did.

    Returns:
        The positives, the candidates, both in their order, and α = σ⁺ − β, above which a candidate was dropped; None
        where no judge decided.
    """
    rule = rule_of(settings)
    score = partial(score_of, divisor=settings.log_odds_divisor)
    judged_positives = [positive for positive in query.positives if positive.log_odds is not None]
    best = max(judged_positives, key=score) if judged_positives else None
    positives = [_positive(positive, best, settings, score) for positive in query.positives]
    if best is None or not rule.betas:
        return positives, [_unfiltered(judged, best, choice, score) for judged in query.candidates], None
    judged_candidates = [candidate for candidate in query.candidates if candidate.log_odds is not None]
    beta, _ = survivors(judged_candidates, score(best), rule.betas, score)
    filtered = [_filtered(judged, score(best), beta, rule, choice, score) for judged in query.candidates]
    return positives, filtered, score(best) - beta


def compared(score: float, positive: float, beta: float) -> str:
    """The comparison that decided, with as many digits as it takes to be seen to hold.

    Example:
        >>> compared(0.62, 0.71, 0.1), compared(0.61004, 0.71, 0.1)
        ('score 0.620 > 0.710 − 0.1', 'score 0.61004 > 0.71000 − 0.1')
    """
    above = score > positive - beta
    for digits in range(3, 10):
        shown = round(score, digits), round(positive, digits)
        if (shown[0] > round(shown[1] - beta, digits + 3)) == above:
            break
    return f"score {score:.{digits}f} {'>' if above else '≤'} {positive:.{digits}f} − {beta:g}"


def _positive(judged: Judged, best: Judged | None, settings: Selection, score: Callable[[Judged], float]) -> Explained:
    if judged.log_odds is None:
        return Explained(judged, None, "error", f"no verdict: {judged.error}")
    value = score(judged)
    words = [] if judged is best else ["not the best of the row's positives"]
    if value < settings.suspect_below:
        words.append(f"suspect: score {value:.3f} < {settings.suspect_below:g}")
    return Explained(judged, value, "positive", "; ".join(words) or "as labelled")


def _unfiltered(judged: Judged, best: Judged | None, choice: Choice, score: Callable[[Judged], float]) -> Explained:
    """Where no judge decides, or no positive has a verdict to compare with."""
    if judged.log_odds is None:
        return Explained(judged, None, "error", f"no verdict: {judged.error}")
    place = _place(judged, choice)
    if place is not None:
        return Explained(judged, score(judged), "chosen", f"negative {place}, without asking the judge")
    words = "passed over by the walk" if best is not None else "nothing to compare with: no positive has a verdict"
    return Explained(judged, score(judged), "kept", words)


def _filtered(
    judged: Judged, positive: float, beta: float, rule: Rule, choice: Choice, score: Callable[[Judged], float]
) -> Explained:
    if judged.log_odds is None:
        return Explained(judged, None, "error", f"no verdict: {judged.error}")
    value = score(judged)
    words = compared(value, positive, beta)
    if beta != rule.betas[0]:
        words += f" (β relaxed from {rule.betas[0]:g})"
    place = _place(judged, choice)
    if value > positive - beta:
        drawn = "" if place is None else f"; drawn at random all the same, as negative {place}"
        return Explained(judged, value, "dropped" if place is None else "chosen", words + drawn)
    if place is None:
        return Explained(judged, value, "kept", words)
    return Explained(judged, value, "chosen", f"{words}; negative {place}")


def _place(judged: Judged, choice: Choice) -> int | None:
    """At which place of the row it stands first, from 1."""
    negatives = [] if choice.triple is None else [negative.item_id for negative in choice.triple.negatives]
    return negatives.index(judged.item_id) + 1 if judged.item_id in negatives else None


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
