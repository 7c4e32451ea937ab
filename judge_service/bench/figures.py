"""Computes the quality of scores of labelled pairs: for all pairs, by subset and by kind of negative.

The interval of ROC-AUC is a percentile bootstrap over queries: each draw takes a query with all of its pairs.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from judge_service.bench.pairs import LabelledPair
from unijudge.judging.verdicts import PairError, Verdict
from unijudge.metrics import (
    bootstrap_roc_auc,
    calibration_bins,
    calibration_error,
    interval,
    roc_auc,
    tied_share,
)

ROUNDS = 1000
"""The number of draws of the bootstrap."""
YES = 0.5
"""The lowest score that counts as a Yes."""
INTERVAL = f"percentile bootstrap over queries, {ROUNDS} rounds"
"""The method of the 95 % interval of ROC-AUC, in words."""


@dataclass(frozen=True)
class ScoredPairs:
    """A labelled pair with the judge's answer."""

    pair: LabelledPair
    query: int
    """The number of the pair's query, from 0."""
    answer: Verdict | PairError


class Bin(BaseModel):
    """A point of a calibration curve: the pairs whose scores lie in one tenth of 0 … 1."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pairs: int
    score: float
    """The mean score of the pairs."""
    matches: float
    """The share of matches among the pairs. For a calibrated judge, this share is close to the score."""


class Figures(BaseModel):
    """The figures of a group of pairs. A value is null if the group has no pairs to measure the value on."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    subset: str | None
    """The subset of the pairs. Null: all subsets, or all subsets that have this kind of negatives."""
    kind: str | None
    """The kind of the negatives, compared with all matches of the subset. Null: all kinds."""
    queries: int
    matches: int
    """The number of pairs that match, including pairs without a verdict."""
    negatives: int
    """The number of pairs that do not match, including pairs without a verdict."""
    without_verdict: dict[str, int]
    """The code of an error → the number of pairs with this error. The other figures leave out these pairs."""
    roc_auc: float | None
    """The probability that a match scores above a negative. Equal scores count half."""
    roc_auc_interval: tuple[float, float] | None
    """The 95 % interval of `roc_auc`."""
    ties: float | None
    """The share of (match, negative) pairs with equal scores."""
    yes: float | None
    """The share of pairs with a score of at least 0.5."""
    yes_of_matches: float | None
    """The share of matches with a score of at least 0.5."""
    yes_of_negatives: float | None
    """The share of negatives with a score of at least 0.5."""
    calibration_error: float | None
    """Expected calibration error over ten bins, 0 … 1. The value depends on the share of matches among the pairs."""
    calibration: list[Bin]
    """The bins that are not empty."""
    label_mass: float | None
    """Mean P(Yes) + P(No)."""
    label_first: float | None
    """The share of pairs whose most probable token is Yes or No."""


@dataclass(frozen=True)
class Group:
    """A rule that selects the pairs of one row of figures."""

    subset: str | None
    """The subset of the pairs. None: all subsets, or all subsets that have this kind of negatives."""
    kind: str | None
    """The kind of the negatives. None: all kinds."""
    subsets: frozenset[str]
    """The subsets of the pairs."""

    def holds(self, pair: LabelledPair) -> bool:
        """Whether the group has a pair. A group of one kind of negatives has all matches of its subsets."""
        return pair.subset in self.subsets and (
            self.kind is None or pair.match or pair.kind == self.kind
        )


def name_of(subset: str | None, kind: str | None) -> str:
    """Returns the name of a group.

    Example:
        >>> name_of("birds", "swap"), name_of(None, None)
        ('birds: swap', 'all')
    """
    return ": ".join(name for name in (subset, kind) if name is not None) or "all"


def groups_of(pairs: Sequence[LabelledPair]) -> Iterator[Group]:
    """Yields a group of all pairs, then a group for each subset, then groups for each kind of negatives.

    A kind has a group over all subsets that contain this kind, and a group for each of these subsets. If all pairs
    belong to the same subset, no group has the name of a subset.
    """
    subsets = list(dict.fromkeys(pair.subset for pair in pairs))
    several = len(subsets) > 1

    # Kind of negatives → the subsets that have this kind, in the order of the pairs.
    subsets_of_kinds: dict[str, dict[str, None]] = {}
    for pair in pairs:
        if pair.kind is not None and not pair.match:
            subsets_of_kinds.setdefault(pair.kind, {})[pair.subset] = None

    yield Group(None, None, frozenset(subsets))
    if several:
        for subset in subsets:
            yield Group(subset, None, frozenset({subset}))

    for kind, subsets_of_kind in subsets_of_kinds.items():
        # A kind of one subset among several would appear twice with the same pairs.
        if len(subsets_of_kind) > 1 or not several:
            yield Group(None, kind, frozenset(subsets_of_kind))
        if several:
            for subset in subsets_of_kind:
                yield Group(subset, kind, frozenset({subset}))


def all_figures(scored: Sequence[ScoredPairs], seed: int) -> list[Figures]:
    """Returns the figures of every group. The group of all pairs comes first.

    Args:
        scored: Pairs with their answers.
        seed: The seed of the bootstrap.
    """
    figures_of_groups = []
    for group in groups_of([one.pair for one in scored]):
        members = [one for one in scored if group.holds(one.pair)]
        figures_of_groups.append(figures(group.subset, group.kind, members, seed))
    return figures_of_groups


def figures(
    subset: str | None, kind: str | None, scored: Sequence[ScoredPairs], seed: int
) -> Figures:
    """Returns the figures of one group of pairs.

    Args:
        subset: The subset of the group.
        kind: The kind of the group's negatives.
        scored: The pairs of the group.
        seed: The seed of the bootstrap.
    """
    judged = [(pair, pair.answer) for pair in scored if isinstance(pair.answer, Verdict)]
    errors = Counter(pair.answer.code for pair in scored if isinstance(pair.answer, PairError))
    matches = sum(one.pair.match for one in scored)
    matches_N = np.array([one.pair.match for one, _ in judged], bool)

    # Scores near 0 and 1 become equal by rounding. Log-odds keep their order.
    log_odds_N = np.array([verdict.log_odds for _, verdict in judged])
    scores_N = np.array([verdict.score for _, verdict in judged])
    queries_N = np.array([one.query for one, _ in judged], np.int64)
    yes_N = scores_N >= YES

    # ROC-AUC needs matches and negatives.
    area = area_interval = ties = None
    if 0 < matches_N.sum() < len(judged):
        area = roc_auc(log_odds_N, matches_N)
        area_interval = _area_interval(log_odds_N, matches_N, queries_N, seed)
        ties = tied_share(log_odds_N, matches_N)
    return Figures(
        subset=subset,
        kind=kind,
        queries=len({one.query for one in scored}),
        matches=matches,
        negatives=len(scored) - matches,
        without_verdict=dict(errors.most_common()),
        roc_auc=area,
        roc_auc_interval=area_interval,
        ties=ties,
        yes=_mean(yes_N),
        yes_of_matches=_mean(yes_N[matches_N]),
        yes_of_negatives=_mean(yes_N[~matches_N]),
        calibration_error=calibration_error(scores_N, matches_N) if judged else None,
        calibration=[
            Bin(pairs=size, score=score, matches=share)
            for size, score, share in calibration_bins(scores_N, matches_N)
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
    """Returns the 95 % interval of ROC-AUC. None for a single query, since every draw would be this query."""
    _, queries_N = np.unique(queries_N, return_inverse=True)
    if not queries_N.any():
        return None
    return interval(bootstrap_roc_auc(scores_N, matches_N, queries_N, seed=seed, rounds=ROUNDS))


def _mean(values: npt.NDArray[np.bool_ | np.float64]) -> float | None:
    return float(np.mean(values)) if len(values) else None
