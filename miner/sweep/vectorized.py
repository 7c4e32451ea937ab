"""Counts the statistics of a selection over blocks of queries. `select_negatives` is the specification.

Letters: Q queries of a block · K candidates of the longest list · S negatives of a row.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from miner.selection.negatives import fallback_places, rule_of
from miner.selection.resolve import at_most
from miner.selection.settings import Selection
from miner.selection.statistics import Statistics
from miner.sweep.matrices import Block, Bools

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Decided:
    """The outcome of a selection for a block."""

    near_QK: Bools
    """The first k candidates, with or without a verdict."""
    pool_QK: Bools
    """The candidates that may be chosen."""
    kept_QK: Bools
    """The candidates that survive the filter."""
    taken_QK: Bools
    """The chosen negatives."""
    suspect_Q: Bools
    """The rows whose positive is suspect."""
    unjudged_Q: Bools
    """The rows without a positive with a verdict."""
    left_Q: Bools
    """The rows that are left out because their positive is suspect."""


def apply_selection(block: Block, settings: Selection) -> Decided:
    """Chooses the negatives of every query of a block."""
    # Rows that get negatives.
    unjudged_Q = np.isnan(block.positive_Q) & ~block.overridden_Q
    suspect_Q = (
        ~at_most(settings.suspect_below, block.positive_Q) & ~block.overridden_Q & ~unjudged_Q
    )
    left_Q = suspect_Q & (settings.suspect_action == "leave_out")
    eligible_Q = ~(block.overridden_Q | unjudged_Q | left_Q)

    # Candidates among the first k, and those that survive the filter.
    rule = rule_of(settings)
    k = np.inf if settings.k is None else settings.k
    near_QK = block.rank_QK < k
    pool_QK = near_QK & ~np.isnan(block.score_QK) & eligible_Q[:, None]
    kept_QK = _survivors(block, pool_QK, rule.betas) if rule.betas else pool_QK

    # The walk takes the first negatives in strides.
    stride = settings.stride if rule.walk == "cyclic" else 1
    taken_QK = kept_QK & (_walk(kept_QK, stride) < settings.num_negatives)

    # The fallback draws from all candidates of the rows without a survivor.
    if rule.fallback == "random":
        without_survivor_Q = pool_QK.any(1) & ~kept_QK.any(1)
        for row in np.flatnonzero(without_survivor_Q):
            columns = np.flatnonzero(pool_QK[row])
            drawn = fallback_places(settings, block.query_ids[row], len(columns))
            taken_QK[row, columns[drawn]] = True
    return Decided(near_QK, pool_QK, kept_QK, taken_QK, suspect_Q, unjudged_Q, left_Q)


def add(statistics: Statistics, block: Block, decided: Decided, stored: int) -> None:
    """Adds a block to the statistics of a selection with `stored` negatives in a row."""
    taken_QK = decided.taken_QK
    survivors_Q, taken_Q = decided.kept_QK.sum(1), taken_QK.sum(1)
    has_row_Q, has_pool_Q = taken_Q > 0, decided.pool_QK.any(1)

    # Each query has exactly one outcome.
    outcomes = {
        "kept": has_row_Q,
        "unjudged": decided.unjudged_Q,
        "no candidate": ~(has_pool_Q | block.overridden_Q | decided.unjudged_Q | decided.left_Q),
        "no survivor": has_pool_Q & ~has_row_Q,
        "suspect": decided.left_Q,
        "override": block.overridden_Q,
    }
    for reason, queries_Q in outcomes.items():
        statistics.reasons[reason] += int(queries_Q.sum())

    statistics.candidates += int(decided.near_QK.sum())
    statistics.survivors += int(survivors_Q.sum())
    statistics.dropped += int((decided.pool_QK & ~decided.kept_QK).sum())
    statistics.suspect += int(decided.suspect_Q.sum())
    statistics.underfilled += int((has_row_Q & (taken_Q < stored)).sum())
    statistics.fallback += int((has_row_Q & (survivors_Q == 0)).sum())
    statistics.short += int((has_pool_Q & (survivors_Q < stored)).sum())
    statistics.ties += _ties(block, taken_QK, stored)

    # Every chosen negative has a score, but published scores may lack similarities.
    statistics.chosen += int(taken_Q.sum())
    statistics.scored += int(taken_Q.sum())
    statistics.score_sum += float(block.score_QK[taken_QK].sum())
    similarities = block.similarity_QK[taken_QK]
    statistics.measured += int((~np.isnan(similarities)).sum())
    statistics.similarity_sum += float(np.nansum(similarities))


def _survivors(block: Block, pool_QK: Bools, betas: tuple[float, ...]) -> Bools:
    """Returns the candidates with score ≤ σ⁺ − β, at the first β for which the row has such a candidate."""
    kept_QK = np.zeros_like(pool_QK)
    for beta in betas:
        todo_Q = ~kept_QK.any(1)
        kept_QK[todo_Q] = pool_QK[todo_Q] & at_most(
            block.score_QK[todo_Q], block.ceiling_QK[todo_Q] - beta
        )
    return kept_QK


def _walk(kept_QK: Bools, stride: int) -> Ints:
    """Returns the index of each kept candidate in the walk of `strided`.

    With n kept candidates, the walk from offset o has ⌊n / stride⌋ steps, and one more step if o < n mod stride.
    """
    place_QK = kept_QK.cumsum(1) - 1
    kept_Q1 = kept_QK.sum(1, keepdims=True)
    whole_Q1, rest_Q1 = np.divmod(kept_Q1, stride)
    offset_QK = place_QK % stride
    steps_before_QK = offset_QK * whole_Q1 + np.minimum(offset_QK, rest_Q1)
    return steps_before_QK + place_QK // stride


def _ties(block: Block, taken_QK: Bools, stored: int) -> int:
    """Counts the rows in which two negatives have the same score."""
    # The scores of each row's negatives, side by side. NaN fills a row with fewer negatives.
    rows, columns = np.nonzero(taken_QK)
    index_QK = taken_QK.cumsum(1) - 1
    places = index_QK[rows, columns]
    scores_QS = np.full((len(taken_QK), stored), np.nan)
    scores_QS[rows, places] = block.score_QK[rows, columns]

    # In sorted order, equal scores are neighbours.
    scores_QS.sort(1)
    is_equal_QS = np.diff(scores_QS) == 0
    return int(is_equal_QS.any(1).sum())
