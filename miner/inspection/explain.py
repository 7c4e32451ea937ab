"""Says in words what selection made of each candidate of a query. Pure.

It decides nothing: `select_negatives` does, and this reads the outcome.
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
View = Literal["suspected false negatives", "suspect positives", "under-filled", "left out", "ties", "errors"]
RULED_OUT: dict[OverrideVerdict | None, str] = {
    "match": "a person: an answer, so never a negative",
    "known": "known to the corpus as an answer to this question, or as its own picture, so never a negative",
    "twin": "says the same as a candidate before it, which stands for both",
}
VIEWS: tuple[View, ...] = get_args(View)


@dataclass(frozen=True)
class Explained:
    """What became of one item, and why."""

    judged: Judged
    score: float | None
    """The judge's, in (0, 1); None where there is no verdict."""
    fate: Fate
    """`chosen` as a negative; `kept` by the filter, but not taken; `dropped` as a false negative; `error`: no
    verdict; `positive`; `answer`: a person or a label says that it is one, or another candidate stands for it."""
    reason: str
    alpha: float | None = None
    """σ⁺ − β, both by its own judge: the cut that it was held against; None where there was none."""


def views_of(choice: SelectionOutcome, stored: int) -> list[View]:
    """For what a person may want to look at this row, in the order of `VIEWS`.

    Args:
        choice: What selection made of a query.
        stored: Negatives that a row should have.
    """
    query = choice.resolved.case.query
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


def outcome(choice: SelectionOutcome, stored: int) -> str:
    """One sentence about a row."""
    if choice.triple is None:
        return {
            "unjudged": "left out: no positive has a verdict",
            "no candidate": "left out: no candidate may be chosen",
            "no survivor": "left out: every candidate is dropped as a false negative",
            "suspect": "left out: its positive is suspect",
            "override": "left out: a person said so",
        }[choice.reason]
    negatives = choice.triple.negatives
    distinct = len({negative.item_id for negative in negatives})
    if any(negative.fallback for negative in negatives):
        return f"{_count(distinct, 'negative')}, drawn at random: nothing survived"
    filled = f" of {stored}, repeated to fill the row" if distinct < stored else ""
    beta = negatives[0].beta
    return f"{_count(distinct, 'negative')}{filled}" + ("" if beta is None else f", β = {beta:g}")


def explain(choice: SelectionOutcome, settings: Selection) -> tuple[list[Explained], list[Explained]]:
    """What became of each item of a query.

    Args:
        choice: What `select_negatives` made of the query.
        settings: The settings that it had.

    Returns:
        The positives and the candidates, both in their order.
    """
    resolved, case = choice.resolved, choice.resolved.case
    query, best = case.query, resolved.positive

    # A positive's score is that of the judge that decides about it.
    judge = 0 if best is None else best.judge
    row = case.large if judge and case.large is not None else query
    seen = {one.item_id: one for one in row.positives}
    positives = [
        _positive(seen.get(one.item_id, one), resolved, settings, case.scales[judge]) for one in query.positives
    ]

    betas = rule_of(settings).betas
    beta = survivors(resolved.candidates, betas)[0] if best is not None and betas else None
    stood = {one.judged.item_id: one for one in resolved.candidates}
    near = {one.item_id for one in within(query.candidates, settings.k)}
    candidates = []
    for one in query.candidates:
        word = case.overrides.get(one.item_id)
        if word in NEVER_NEGATIVE:
            candidates.append(Explained(one, _score(one, case.scales[0]), "answer", RULED_OUT[word]))
        elif one.item_id in stood:
            candidates.append(_candidate(stood[one.item_id], choice, beta, betas))
        else:
            candidates.append(_not_held(one, one.item_id in near, case))
    return positives, candidates


def with_difference(score: float, positive: float, beta: float) -> str:
    """The comparison that decided, with as many digits as it takes to be seen to hold.

    Example:
        >>> with_difference(0.62, 0.71, 0.1), with_difference(0.61004, 0.71, 0.1)
        ('score 0.620 > 0.710 − 0.1', 'score 0.61004 > 0.71000 − 0.1')
    """
    above = not at_most(score, positive - beta)
    for digits in range(3, 10):
        shown = round(score, digits), round(positive, digits)
        if (shown[0] > round(shown[1] - beta, digits + 3)) == above:
            break
    return f"score {score:.{digits}f} {'>' if above else '≤'} {positive:.{digits}f} − {beta:g}"


def _positive(judged: Judged, resolved: ResolvedQuery, settings: Selection, scale: Scale) -> Explained:
    word, best = resolved.case.overrides.get(judged.item_id), resolved.positive
    value = _score(judged, scale)
    if word == "negative":
        return Explained(judged, value, "positive", "a person: not an answer, so no positive of this row")
    if value is None and word != "match":
        return Explained(judged, None, "error", f"no verdict: {judged.error}")
    words = []
    if best is None or judged.item_id != best.judged.item_id:
        words.append("not the best of the row's positives")
    if word == "match":
        words.append("a person: an answer")
    elif value is not None and not at_most(settings.suspect_below, value):
        words.append(f"suspect: score {value:.3f} < {settings.suspect_below:g}")
    return Explained(judged, value, "positive", "; ".join(words) or "as labelled")


def _score(judged: Judged, scale: Scale) -> float | None:
    return None if judged.log_odds is None else scale.score(judged)


def _not_held(judged: Judged, near: bool, case: Case) -> Explained:
    """One candidate that was held against no positive."""
    if judged.log_odds is None:
        return Explained(judged, None, "error", f"no verdict: {judged.error}")
    denied = any(case.overrides.get(one.item_id) == "negative" for one in case.query.positives)
    why = "a person left no positive with a verdict" if denied else "no positive has a verdict"
    reason = f"nothing to compare with: {why}" if near else "beyond the first k"
    return Explained(judged, case.scales[0].score(judged), "kept", reason)


def _candidate(
    stood: ScoredCandidate, choice: SelectionOutcome, beta: float | None, betas: Sequence[float]
) -> Explained:
    """One candidate that no person calls an answer."""
    scale = choice.resolved.case.scales[stood.judge]
    score, place = _score(stood.judged, scale), _place(stood.judged, choice)
    if stood.overruled:
        words = "a person: no answer" + ("" if place is None else f"; negative {place}")
        return Explained(stood.judged, score, "kept" if place is None else "chosen", words)
    assert score is not None and stood.positive is not None  # noqa: S101, PT018  else it would not stand
    if beta is None:
        words = "passed over by the walk" if place is None else f"negative {place}, without asking the judge"
        return Explained(stood.judged, score, "kept" if place is None else "chosen", words)
    words, alpha = with_difference(score, stood.positive, beta), stood.positive - beta
    if beta != betas[0]:
        words += f" (β relaxed from {betas[0]:g})"
    if stood.judge:
        words += ", by the second judge"
    if not stood.survives(beta):
        drawn = "" if place is None else f"; drawn at random all the same, as negative {place}"
        return Explained(stood.judged, score, "dropped" if place is None else "chosen", words + drawn, alpha)
    if place is None:
        return Explained(stood.judged, score, "kept", words, alpha)
    return Explained(stood.judged, score, "chosen", f"{words}; negative {place}", alpha)


def _place(judged: Judged, choice: SelectionOutcome) -> int | None:
    """At which place of the row it stands first, from 1."""
    negatives = [] if choice.triple is None else [negative.item_id for negative in choice.triple.negatives]
    return negatives.index(judged.item_id) + 1 if judged.item_id in negatives else None


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
