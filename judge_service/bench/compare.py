"""Two judges on the same labelled pairs, from what `judge bench` wrote of each: is one better, or is it chance?"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from judge_service.bench.figures import ROUNDS, ScoredPairs, groups_of, name_of
from judge_service.bench.pairs import LabelledPair
from judge_service.bench.report import NOTHING, number
from judge_service.bench.result import RESULT, SCORES, Bench
from unijudge.errors import DataError
from unijudge.foreign.cells import Side
from unijudge.formats.labelled_scores import LabelledScore, read_labelled
from unijudge.judging.verdicts import Verdict
from unijudge.metrics import bootstrap_roc_auc, interval, roc_auc
from unijudge.pages.markdown import table
from unijudge.storage.files import read_json

DIFFERENCE_HEAD = ["pairs", "both judged", "ROC-AUC of A", "of B", "B less A", "95 %", "same answer"]

Both = tuple[ScoredPairs, ScoredPairs]
"""One pair, as A and as B judged it."""


@dataclass(frozen=True)
class JudgeDifference:
    """Two judges on one group of pairs."""

    name: str
    pairs: int
    """Those on which both gave a verdict; all figures are of these."""
    areas: tuple[float, float] | None
    """ROC-AUC of A and of B; None without a match or without anything else."""
    interval: tuple[float, float] | None
    """The 95 % interval of B's area less A's; None for a single query."""
    same_answer: float | None
    """The share of pairs to which both say Yes, or both No."""


def compare_judges(first: Path, second: Path, seed: int = 0) -> str:
    """The difference of two measurements, as a table in Markdown.

    Args:
        first: A folder that `judge bench` wrote: A.
        second: Another one, of the same pairs: B.
        seed: Of the bootstrap.

    Raises:
        DataError: One is no such folder, they have no pair in common, or a pair has two labels.
    """
    judges = [read_json(folder / RESULT, Bench).identity for folder in (first, second)]
    both, left_out = _joined(first, second)
    parts = [
        f"A: {judges[0]}, {first}\nB: {judges[1]}, {second}",
        table(DIFFERENCE_HEAD, map(_row, differences(both, seed))),
        f"95 % intervals: percentile bootstrap over queries, {ROUNDS} rounds, seed {seed}, the same draws for both.",
    ]
    if left_out:
        parts.append(f"{left_out:,} pairs are in one of the two folders only. They are left out.")
    return "\n\n".join(parts)


def differences(both: Sequence[Both], seed: int) -> list[JudgeDifference]:
    """The difference on each group of pairs, all pairs first.

    Args:
        both: Pairs as A and as B judged them.
        seed: Of the bootstrap.
    """
    differences = []
    for group in groups_of([a.pair for a, _ in both]):
        pairs = [pair for pair in both if group.holds(pair[0].pair)]
        differences.append(_difference(name_of(group.subset, group.kind), pairs, seed))
    return differences


def _difference(name: str, both: Sequence[Both], seed: int) -> JudgeDifference:
    judged = [
        (a, a.answer.log_odds, b.answer.log_odds)
        for a, b in both
        if isinstance(a.answer, Verdict) and isinstance(b.answer, Verdict)
    ]
    if not judged:
        return JudgeDifference(name, 0, None, None, None)
    matches_N = np.array([one.pair.match for one, _, _ in judged])
    sides = np.array([one for _, one, _ in judged]), np.array([other for _, _, other in judged])
    same_answer = float(np.mean((sides[0] >= 0) == (sides[1] >= 0)))
    if matches_N.all() or not matches_N.any():
        return JudgeDifference(name, len(judged), None, None, same_answer)
    areas = roc_auc(sides[0], matches_N), roc_auc(sides[1], matches_N)
    _, queries_N = np.unique([one.query for one, _, _ in judged], return_inverse=True)
    # The same seed draws the same queries for both judges, so hard queries are hard for both.
    draws = [bootstrap_roc_auc(side, matches_N, queries_N, seed=seed, rounds=ROUNDS) for side in sides]
    ends = interval(draws[1] - draws[0]) if queries_N.any() else None
    return JudgeDifference(name, len(judged), areas, ends, same_answer)


def _joined(first: Path, second: Path) -> tuple[list[Both], int]:
    """The pairs that both folders hold, and the number of the others.

    Raises:
        DataError: The folders have no pair in common, or a pair has two labels.
    """
    rows = {_key(row): row for row in read_labelled(first / SCORES)}
    others = {_key(row): row for row in read_labelled(second / SCORES)}
    common = [key for key in rows if key in others]
    if not common:
        raise DataError(f"{first} and {second}: have no pair in common. Give two measurements of the same files")
    queries: dict[bytes, int] = {}
    both = []
    for key in common:
        row, other = rows[key], others[key]
        if row.match != other.match:
            raise DataError(
                f"{first} and {second}: {row.place} and {other.place} are the same pair with two labels. Measure both "
                "judges on the same files"
            )
        query = queries.setdefault(row.query_key, len(queries))
        both.append((_scored(row, query), _scored(other, query)))
    return both, len(rows) + len(others) - 2 * len(common)


def _key(row: LabelledScore) -> tuple[str, str | None, bytes, bytes]:
    return row.subset, row.kind, row.query_key, row.candidate_key


def _scored(row: LabelledScore, query: int) -> ScoredPairs:
    sides = Side(row.query_text, row.query_image), Side(row.candidate_text, row.candidate_image)
    return ScoredPairs(LabelledPair(row.place, row.subset, row.kind, *sides, match=row.match), query, row.answer)


def _row(one: JudgeDifference) -> list[str]:
    areas = one.areas or (None, None)
    change = NOTHING if one.areas is None else f"{one.areas[1] - one.areas[0]:+.3f}"
    ends = NOTHING if one.interval is None else f"{one.interval[0]:+.3f} … {one.interval[1]:+.3f}"
    return [one.name, f"{one.pairs:,}", *map(number, areas), change, ends, number(one.same_answer)]
