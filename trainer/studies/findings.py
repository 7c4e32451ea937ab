"""The findings of a study: for each comparison the difference, its intervals and the agreement with the paper."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from trainer.evaluation.power import Interval, Power
from trainer.studies.finished import FinishedStep
from trainer.studies.measures import CellReading, RowKey, row_of
from trainer.studies.plan import Plan
from trainer.studies.statistics import Difference, difference
from trainer.studies.study import Comparison, Study
from unijudge.errors import DataError

Readings = Mapping[RowKey, Mapping[int, CellReading]]

_VERDICTS = {
    "helped": "helped",
    "did harm": "did harm",
    "no effect": "did not show an effect",
    "not settled": "cannot be decided from one seed",
}


@dataclass(frozen=True)
class StudyFinding:
    """The result of a comparison for one measure, at one combination of the other axes."""

    name: str
    measure: str
    comparison: Comparison
    others: Mapping[str, str]
    """Axis → value, for every axis that is not compared."""
    difference: Difference

    @property
    def claim(self) -> str:
        """The claim of the comparison, with the values of the other axes that the comparison leaves free.

        Example:
            >>> mined = Comparison(axis="negatives", left="random", right="hard", claim="Hard negatives,")
            >>> found = Difference(0.02, 5, (0.01, 0.03), (0.005, 0.035))
            >>> StudyFinding("mined", "precision@1", mined, {"loss": "soft"}, found).claim
            'Hard negatives (loss soft)'
        """
        fixed = self.comparison.where
        free = [f"{axis} {label}" for axis, label in self.others.items() if axis not in fixed]
        claim = self.comparison.claim.rstrip(" ,")
        return f"{claim} ({', '.join(free)})" if free else claim

    @property
    def verdict(self) -> str:
        """What the intervals allow to say, such as `helped`."""
        return _VERDICTS[self.difference.finding]

    @property
    def numbers(self) -> tuple[str, str, str]:
        """The difference, its interval over seeds and its interval over queries, as text."""
        found = self.difference
        return f"{found.value:+.3f}", interval(found.over_seeds), interval(found.over_queries)

    @property
    def sentence(self) -> str:
        """The sentence of the finding: claim, verdict and numbers.

        Example:
            >>> mined = Comparison(axis="negatives", left="random", right="hard", claim="Hard negatives,")
            >>> found = Difference(0.02, 5, (0.01, 0.03), (0.005, 0.035))
            >>> StudyFinding("mined", "precision@1", mined, {}, found).sentence
            'Hard negatives helped: precision@1 +0.020, [+0.010, +0.030] over 5 seeds, [+0.005, +0.035] over queries.'
        """
        value, over_seeds, over_queries = self.numbers
        text = f"{self.claim} {self.verdict}: {self.measure} {value}"
        if self.difference.over_seeds:
            text += f", {over_seeds} over {self.difference.seeds} seeds"
        if self.difference.over_queries:
            text += f", {over_queries} over queries"
        return f"{text}."

    @property
    def agreement(self) -> str:
        """The agreement of the finding with the paper. A dash if the paper claims nothing."""
        expected = {"helps": "helped", "harms": "did harm"}.get(self.comparison.paper or "")
        if expected is None:
            return "–"
        finding = self.difference.finding
        if finding == expected:
            return "agrees"
        return "undecided" if finding in ("no effect", "not settled") else "does not agree"


@dataclass(frozen=True)
class Results:
    """All measures of a study's finished cells."""

    study: Study
    finished: Mapping[str, FinishedStep]
    """Name → finished cell."""
    cells: int
    """The number of all cells."""
    measured: Mapping[str, Readings]
    """Measure → row → seed → reading."""

    @classmethod
    def of(cls, plan: Plan) -> "Results":
        """Reads the outputs of the finished cells.

        Raises:
            DataError: No measured cell is finished, or a file lacks a measured number.
        """
        finished = plan.finished()
        measured = {name: _readings(name, plan, finished) for name in plan.study.measures}
        if not any(measured.values()):
            raise DataError(
                f"{plan.out}: no measured step of the study is finished. Run the study first"
            )
        return cls(plan.study, finished, len(plan.cells), measured)

    def rows(self) -> list[RowKey]:
        """Returns the rows of the table, in the order of the study."""
        return list(dict.fromkeys(row for readings in self.measured.values() for row in readings))

    def findings(self) -> list[StudyFinding]:
        """Returns a finding for each comparison, each measure and each combination of the other axes."""
        findings: list[StudyFinding] = []
        for name, comparison in self.study.comparisons.items():
            for measure, readings in self.measured.items():
                findings += _compared(name, comparison, measure, readings)
        return findings

    def answers(self) -> list[str]:
        """Returns the sentences that answer the study's question, one for each entry of `answer`."""
        by_comparison: dict[tuple[str, str], list[StudyFinding]] = {}
        for finding in self.findings():
            by_comparison.setdefault((finding.name, finding.measure), []).append(finding)

        first_measure = next(iter(self.study.measures))
        sentences = []
        for name, where in self.study.answer.items():
            findings = by_comparison.get((name, first_measure), [])
            chosen = [found for found in findings if where.items() <= found.others.items()]
            sentences += [finding.sentence for finding in chosen]
            if not chosen:
                claim = self.study.comparisons[name].claim.rstrip(" ,")
                sentences.append(f"{claim}: no seed has finished both sides.")
        return sentences


def _readings(name: str, plan: Plan, finished: Mapping[str, FinishedStep]) -> Readings:
    """Returns row → seed → the reading of a measure."""
    readings: dict[RowKey, dict[int, CellReading]] = {}
    for step in finished.values():
        measured = step.measures.get(name)
        if measured is not None:
            cell = plan.cells[step.name]
            row = row_of(cell, plan.study.measures[name])
            readings.setdefault(row, {})[cell.seed] = measured.reading()
    return readings


def _compared(
    name: str, comparison: Comparison, measure: str, readings: Readings
) -> Iterator[StudyFinding]:
    """Yields the finding of a comparison for each row that has the right value and a row with the left value."""
    for row, right in readings.items():
        step, labels = row[0], dict(row[1])
        others = {axis: label for axis, label in labels.items() if axis != comparison.axis}
        has_right_value = labels.get(comparison.axis) == comparison.right
        if not has_right_value or not comparison.where.items() <= others.items():
            continue

        baseline = labels | {comparison.axis: comparison.left}
        left = readings.get((step, tuple(baseline.items())))
        change = difference(left, right) if left else None
        if change is not None:
            yield StudyFinding(name, measure, comparison, others, change)


def interval(ends: Interval | None) -> str:
    """Returns an interval as text, or a dash.

    Example:
        >>> interval((-0.01, 0.02)), interval(None)
        ('[-0.010, +0.020]', '–')
    """
    return f"[{ends[0]:+.3f}, {ends[1]:+.3f}]" if ends else "–"


def powers(findings: Sequence[StudyFinding], detect: float | None) -> list[str]:
    """Returns a sentence about the smallest detectable difference of each measure of rankings.

    Args:
        findings: The findings of a study.
        detect: The difference to detect, or None. If a measure has too few queries, its sentence gives the needed
            number.
    """
    sentences = []
    for measure in dict.fromkeys(finding.measure for finding in findings):
        differences = [finding.difference for finding in findings if finding.measure == measure]
        measured = [
            Power.measured(found.queries, found.over_queries)
            for found in differences
            if found.over_queries
        ]
        # If all differences are equal, the interval has no width and predicts nothing about other queries.
        made = [power for power in measured if power.smallest]
        if not made:
            continue
        best = min(made, key=lambda power: power.smallest)
        worst = max(made, key=lambda power: power.smallest)
        sizes = dict.fromkeys(f"{power.smallest:.3f}" for power in (best, worst))
        sentence = (
            f"With {worst.queries:,} queries, the smallest detectable difference of {measure} is "
            f"{' to '.join(sizes)} (95 %, paired by query)."
        )
        if doubt := worst.lacking(detect):
            sentence += f" {doubt}."
        sentences.append(sentence)
    return sentences
