"""Compares two judges on the same labelled pairs, from two folders of `judge bench`.

The intervals show whether a difference is larger than chance.
"""

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

DIFFERENCE_HEAD = [
    "pairs",
    "both judged",
    "ROC-AUC of A",
    "of B",
    "B less A",
    "95 %",
    "same answer",
]

Both = tuple[ScoredPairs, ScoredPairs]
"""The same pair, judged by A and by B."""


@dataclass(frozen=True)
class JudgeDifference:
    """The difference between two judges on one group of pairs."""

    name: str
    pairs: int
    """The number of pairs with a verdict of both judges. All figures are about these pairs."""
    areas: tuple[float, float] | None
    """ROC-AUC of A and of B. None if all pairs have the same label."""
    interval: tuple[float, float] | None
    """The 95 % interval of B's area minus A's area. None for a single query."""
    same_answer: float | None
    """The share of pairs with the same answer of both judges: two times Yes, or two times No."""


def compare_judges(first: Path, second: Path, seed: int = 0) -> str:
    """Returns the difference between two measurements, as a table in Markdown.

    Args:
        first: The folder of `judge bench` for judge A.
        second: The folder of `judge bench` for judge B, with the same pairs.
        seed: The seed of the bootstrap.

    Raises:
        DataError: A folder is not from `judge bench`, the folders have no pair in common, or a pair has two labels.
    """
    judges = [read_json(folder / RESULT, Bench).identity for folder in (first, second)]
    both, left_out = _joined(first, second)
    parts = [
        f"A: {judges[0]}, {first}\nB: {judges[1]}, {second}",
        table(DIFFERENCE_HEAD, map(_row, differences(both, seed))),
        f"95 % intervals: percentile bootstrap over queries, {ROUNDS} rounds, seed {seed}, the same draws for both.",
    ]
    if left_out:
        parts.append(f"{left_out:,} pairs are in only one of the two folders, and are left out.")
    return "\n\n".join(parts)


def differences(both: Sequence[Both], seed: int) -> list[JudgeDifference]:
    """Returns the difference for each group of pairs. The group of all pairs comes first.

    Args:
        both: The pairs, judged by A and by B.
        seed: The seed of the bootstrap.
    """
    differences = []
    for group in groups_of([a.pair for a, _ in both]):
        pairs = [pair for pair in both if group.holds(pair[0].pair)]
        differences.append(_difference(name_of(group.subset, group.kind), pairs, seed))
    return differences


def _difference(name: str, both: Sequence[Both], seed: int) -> JudgeDifference:
    # Only pairs with a verdict of both judges can be compared.
    pairs: list[ScoredPairs] = []
    first: list[float] = []
    second: list[float] = []
    for a, b in both:
        if isinstance(a.answer, Verdict) and isinstance(b.answer, Verdict):
            pairs.append(a)
            first.append(a.answer.log_odds)
            second.append(b.answer.log_odds)
    if not pairs:
        return JudgeDifference(name, 0, None, None, None)

    # The log-odds of a Yes are at least 0.
    first_N = np.array(first)
    second_N = np.array(second)
    same_answer = float(np.mean((first_N >= 0) == (second_N >= 0)))

    # ROC-AUC needs matches and negatives.
    matches_N = np.array([scored.pair.match for scored in pairs])
    if matches_N.all() or not matches_N.any():
        return JudgeDifference(name, len(pairs), None, None, same_answer)
    areas = roc_auc(first_N, matches_N), roc_auc(second_N, matches_N)

    # A bootstrap over a single query draws the same query each time.
    _, queries_N = np.unique([scored.query for scored in pairs], return_inverse=True)
    if not queries_N.any():
        return JudgeDifference(name, len(pairs), areas, None, same_answer)

    # The same seed draws the same queries for both judges, so a draw of hard queries is hard for both.
    first_areas = bootstrap_roc_auc(first_N, matches_N, queries_N, seed=seed, rounds=ROUNDS)
    second_areas = bootstrap_roc_auc(second_N, matches_N, queries_N, seed=seed, rounds=ROUNDS)
    return JudgeDifference(
        name, len(pairs), areas, interval(second_areas - first_areas), same_answer
    )


def _joined(first: Path, second: Path) -> tuple[list[Both], int]:
    """Returns the pairs that are in both folders, and the number of pairs that are in only one folder.

    Raises:
        DataError: The folders have no pair in common, or a pair has two labels.
    """
    first_rows = {_key(row): row for row in read_labelled(first / SCORES)}
    second_rows = {_key(row): row for row in read_labelled(second / SCORES)}
    common = [key for key in first_rows if key in second_rows]
    if not common:
        raise DataError(
            f"{first} and {second}: no pair is in both folders. Give two measurements of the same files"
        )

    # Queries are numbered here, so that a query has the same number for both judges.
    queries: dict[bytes, int] = {}
    both = []
    for key in common:
        a, b = first_rows[key], second_rows[key]
        if a.match != b.match:
            raise DataError(
                f"{first} and {second}: {a.place} and {b.place} are the same pair with different labels. Measure both "
                "judges on the same files"
            )
        query = queries.setdefault(a.query_key, len(queries))
        both.append((_scored(a, query), _scored(b, query)))
    return both, len(first_rows) + len(second_rows) - 2 * len(common)


def _key(row: LabelledScore) -> tuple[str, str | None, bytes, bytes]:
    return row.subset, row.kind, row.query_key, row.candidate_key


def _scored(row: LabelledScore, query: int) -> ScoredPairs:
    sides = Side(row.query_text, row.query_image), Side(row.candidate_text, row.candidate_image)
    return ScoredPairs(
        LabelledPair(row.place, row.subset, row.kind, *sides, match=row.match), query, row.answer
    )


def _row(group: JudgeDifference) -> list[str]:
    areas = group.areas or (None, None)
    change = NOTHING if group.areas is None else f"{group.areas[1] - group.areas[0]:+.3f}"
    ends = NOTHING
    if group.interval is not None:
        low, high = group.interval
        ends = f"{low:+.3f} … {high:+.3f}"
    return [
        group.name,
        f"{group.pairs:,}",
        *map(number, areas),
        change,
        ends,
        number(group.same_answer),
    ]
