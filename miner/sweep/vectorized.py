"""Counts a selection over blocks of queries, without writing it. `select_negatives` specifies it: this counts the same.

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
    """What one selection makes of a block."""

    near_QK: Bools
    """The first k candidates, with a verdict or without."""
    pool_QK: Bools
    """Those that may be chosen."""
    kept_QK: Bools
    """Those that survive the filter."""
    taken_QK: Bools
    """The negatives."""
    suspect_Q: Bools
    unjudged_Q: Bools
    left_Q: Bools
    """Left out because the positive is suspect."""


def apply_selection(block: Block, settings: Selection) -> Decided:
    """Chooses the negatives of every query of a block."""
    rule = rule_of(settings)
    unjudged_Q = np.isnan(block.positive_Q) & ~block.overridden_Q
    suspect_Q = ~at_most(settings.suspect_below, block.positive_Q) & ~block.overridden_Q & ~unjudged_Q
    left_Q = suspect_Q & (settings.suspect_action == "leave_out")
    open_Q = ~(block.overridden_Q | unjudged_Q | left_Q)
    near_QK = block.rank_QK < (np.inf if settings.k is None else settings.k)
    pool_QK = near_QK & ~np.isnan(block.score_QK) & open_Q[:, None]
    kept_QK = _survivors(block, pool_QK, rule.betas) if rule.betas else pool_QK
    walk_QK = _walk(kept_QK, settings.stride if rule.walk == "cyclic" else 1)
    taken_QK = kept_QK & (walk_QK < settings.num_negatives)
    if rule.fallback == "random":
        for row in np.flatnonzero(pool_QK.any(1) & ~kept_QK.any(1)):
            places = np.flatnonzero(pool_QK[row])
            taken_QK[row, places[fallback_places(settings, block.query_ids[row], len(places))]] = True
    return Decided(near_QK, pool_QK, kept_QK, taken_QK, suspect_Q, unjudged_Q, left_Q)


def add(statistics: Statistics, block: Block, decided: Decided, stored: int) -> None:
    """Adds a block to the statistics of a selection with `num_negatives` negatives in a row."""
    taken_QK, survivors_Q, taken_Q = decided.taken_QK, decided.kept_QK.sum(1), decided.taken_QK.sum(1)
    rows_Q, has_pool_Q = taken_Q > 0, decided.pool_QK.any(1)
    left_out = {
        "unjudged": decided.unjudged_Q,
        "no candidate": ~(has_pool_Q | block.overridden_Q | decided.unjudged_Q | decided.left_Q),
        "no survivor": has_pool_Q & ~rows_Q,
        "suspect": decided.left_Q,
        "override": block.overridden_Q,
    }
    statistics.reasons.update({reason: int(chosen_Q.sum()) for reason, chosen_Q in left_out.items()})
    statistics.reasons["kept"] += int(rows_Q.sum())
    statistics.candidates += int(decided.near_QK.sum())
    statistics.survivors += int(survivors_Q.sum())
    statistics.dropped += int((decided.pool_QK & ~decided.kept_QK).sum())
    statistics.suspect += int(decided.suspect_Q.sum())
    statistics.underfilled += int((rows_Q & (taken_Q < stored)).sum())
    statistics.fallback += int((rows_Q & (survivors_Q == 0)).sum())
    statistics.short += int((has_pool_Q & (survivors_Q < stored)).sum())
    statistics.ties += _ties(block, taken_QK, stored)
    statistics.chosen += int(taken_Q.sum())
    statistics.scored += int(taken_Q.sum())
    statistics.score_sum += float(block.score_QK[taken_QK].sum())
    similarities = block.similarity_QK[taken_QK]
    statistics.measured += int((~np.isnan(similarities)).sum())
    statistics.similarity_sum += float(np.nansum(similarities))


def _survivors(block: Block, pool_QK: Bools, betas: tuple[float, ...]) -> Bools:
    """Those with score ≤ σ⁺ − β, at the first β at which a row has any."""
    kept_QK = np.zeros_like(pool_QK)
    for beta in betas:
        todo_Q = ~kept_QK.any(1)
        kept_QK[todo_Q] = pool_QK[todo_Q] & at_most(block.score_QK[todo_Q], block.ceiling_QK[todo_Q] - beta)
    return kept_QK


def _walk(kept_QK: Bools, stride: int) -> Ints:
    """When each kept candidate's turn comes in the walk of `strided`, from 0.

    Of n kept ones the walk from offset o has ⌊n / stride⌋ steps, and one more where o < n mod stride.
    """
    place_QK = kept_QK.cumsum(1) - 1
    whole_Q1, rest_Q1 = np.divmod(kept_QK.sum(1, keepdims=True), stride)
    offset_QK = place_QK % stride
    return offset_QK * whole_Q1 + np.minimum(offset_QK, rest_Q1) + place_QK // stride


def _ties(block: Block, taken_QK: Bools, stored: int) -> int:
    """Rows in which two negatives have the same score."""
    rows, columns = np.nonzero(taken_QK)
    scores_QS = np.full((len(taken_QK), stored), np.nan)
    scores_QS[rows, (taken_QK.cumsum(1) - 1)[rows, columns]] = block.score_QK[rows, columns]
    scores_QS.sort(1)
    return int((np.diff(scores_QS) == 0).any(1).sum())
