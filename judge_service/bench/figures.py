"""What scores of labelled pairs are worth: plain arithmetic, of all pairs, by subset and by kind of negative.

The interval of an area is a percentile bootstrap over queries: each draw takes a query with all of its pairs.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from judge_service.bench.pairs import LabelledPair
from unijudge.judging.verdicts import PairError, Verdict
from unijudge.metrics import bootstrap_roc_auc, calibration_bins, calibration_error, interval, roc_auc, tied_share

ROUNDS = 1000
"""Of the bootstrap."""
YES = 0.5
"""The least score that counts as a Yes."""
INTERVAL = f"percentile bootstrap over queries, {ROUNDS} rounds"
"""How the 95 % interval of an area is made, in words."""


@dataclass(frozen=True)
class ScoredPairs:
    """A labelled pair, and what the judge said of it."""

    pair: LabelledPair
    query: int
    """The number of the pair's query, from 0."""
    answer: Verdict | PairError


class Bin(BaseModel):
    """One point of a calibration curve: the pairs whose scores lie in one tenth of 0 … 1."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pairs: int
    score: float
    """Their mean score."""
    matches: float
    """The share of them that match; of a calibrated judge, about the score."""


class Figures(BaseModel):
    """What a judge's scores of some pairs are worth. A value is null where there is nothing to measure it on."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    subset: str | None
    """Null: of all subsets; of a kind, of those that have it."""
    kind: str | None
    """Of the negatives, which are held against all matches of the subset. Null: of all kinds."""
    queries: int
    matches: int
    """Pairs that match, those without a verdict included."""
    negatives: int
    """Pairs that do not match, those without a verdict included."""
    without_verdict: dict[str, int]
    """Pairs without a verdict, by the code of the reason. No other figure includes them."""
    roc_auc: float | None
    """The probability that a match scores above a negative; equal scores count half."""
    roc_auc_interval: tuple[float, float] | None
    """Its 95 % interval."""
    ties: float | None
    """The share of (match, negative) pairs with equal scores."""
    yes: float | None
    """The share of pairs with a score of at least 0.5."""
    yes_of_matches: float | None
    yes_of_negatives: float | None
    calibration_error: float | None
    """Expected calibration error over ten bins, 0 … 1. It depends on the share of matches among the pairs."""
    calibration: list[Bin]
    """The bins that are not empty."""
    label_mass: float | None
    """Mean P(Yes) + P(No)."""
    label_first: float | None
    """The share of pairs whose likeliest token of all is Yes or No."""


@dataclass(frozen=True)
class Group:
    """Pairs that are measured together."""

    subset: str | None
    """Null: of all subsets; of a kind, of those that have it."""
    kind: str | None
    """Of the negatives. Null: of all kinds."""
    subsets: frozenset[str]
    """The subsets that its pairs are from."""

    def holds(self, pair: LabelledPair) -> bool:
        """Whether a pair is one of them: a kind of negatives is held against all matches of its subsets."""
        return pair.subset in self.subsets and (self.kind is None or pair.match or pair.kind == self.kind)


def name_of(subset: str | None, kind: str | None) -> str:
    """What a group is called.

    Example:
        >>> name_of("birds", "swap"), name_of(None, None)
        ('birds: swap', 'all')
    """
    return ": ".join(name for name in (subset, kind) if name is not None) or "all"


def groups_of(pairs: Sequence[LabelledPair]) -> Iterator[Group]:
    """All pairs first; then the subsets, and the kinds, each over all subsets that have it and in each of these.

    Where all pairs are of one subset, groups carry no name of a subset.
    """
    subsets = list(dict.fromkeys(pair.subset for pair in pairs))
    homes: dict[str, dict[str, None]] = {}
    for pair in pairs:
        if pair.kind is not None and not pair.match:
            homes.setdefault(pair.kind, {})[pair.subset] = None
    yield Group(None, None, frozenset(subsets))
    if len(subsets) > 1:
        yield from (Group(subset, None, frozenset({subset})) for subset in subsets)
    for kind, home in homes.items():
        if len(home) > 1 or len(subsets) == 1:
            yield Group(None, kind, frozenset(home))
        if len(subsets) > 1:
            yield from (Group(subset, kind, frozenset({subset})) for subset in home)


def all_figures(scored: Sequence[ScoredPairs], seed: int) -> list[Figures]:
    """The figures of every group, all pairs first.

    Args:
        scored: Pairs with their answers.
        seed: Of the bootstrap.
    """
    found = []
    for group in groups_of([one.pair for one in scored]):
        members = [one for one in scored if group.holds(one.pair)]
        found.append(figures(group.subset, group.kind, members, seed))
    return found


def figures(subset: str | None, kind: str | None, scored: Sequence[ScoredPairs], seed: int) -> Figures:
    """The figures of one group of pairs.

    Args:
        subset: The name of the group.
        kind: The kind of its negatives.
        scored: Its pairs.
        seed: Of the bootstrap.
    """
    judged = [(one, one.answer) for one in scored if isinstance(one.answer, Verdict)]
    errors = Counter(one.answer.code for one in scored if isinstance(one.answer, PairError))
    matches = sum(one.pair.match for one in scored)
    matches_N = np.array([one.pair.match for one, _ in judged], bool)
    # Log-odds keep the order that scores near 0 and 1 lose when they are rounded.
    log_odds_N = np.array([verdict.log_odds for _, verdict in judged])
    scores_N = np.array([verdict.score for _, verdict in judged])
    queries_N = np.array([one.query for one, _ in judged], np.int64)
    yes_N = scores_N >= YES
    has_both = 0 < matches_N.sum() < len(judged)
    return Figures(
        subset=subset,
        kind=kind,
        queries=len({one.query for one in scored}),
        matches=matches,
        negatives=len(scored) - matches,
        without_verdict=dict(errors.most_common()),
        roc_auc=roc_auc(log_odds_N, matches_N) if has_both else None,
        roc_auc_interval=_area_interval(log_odds_N, matches_N, queries_N, seed) if has_both else None,
        ties=tied_share(log_odds_N, matches_N) if has_both else None,
        yes=_mean(yes_N),
        yes_of_matches=_mean(yes_N[matches_N]),
        yes_of_negatives=_mean(yes_N[~matches_N]),
        calibration_error=calibration_error(scores_N, matches_N) if judged else None,
        calibration=[
            Bin(pairs=size, score=score, matches=share) for size, score, share in calibration_bins(scores_N, matches_N)
        ],
        label_mass=_mean(np.array([verdict.mass for _, verdict in judged])),
        label_first=_mean(np.array([verdict.argmax_is_label for _, verdict in judged])),
    )


def _area_interval(
    scores_N: npt.NDArray[np.float64],
    matches_N: npt.NDArray[np.bool_],
    queries_N: npt.NDArray[np.int64],
    seed: int,
) -> tuple[float, float] | None:
    """None for a single query: there is nothing to draw."""
    _, queries_N = np.unique(queries_N, return_inverse=True)
    if not queries_N.any():
        return None
    return interval(bootstrap_roc_auc(scores_N, matches_N, queries_N, seed=seed, rounds=ROUNDS))


def _mean(values: npt.NDArray[np.bool_ | np.float64]) -> float | None:
    return float(np.mean(values)) if len(values) else None
