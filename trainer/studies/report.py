"""The report of a study: a table in Markdown, and a page with the same table, curves and sentences.

The program writes the sentences from the numbers. An unfinished study has a report as well, which gives the number of
finished steps and seeds.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainer.studies.finished import FinishedStep, write_finished
from trainer.studies.measures import CellReading, RowKey, row_of
from trainer.studies.plan import Plan
from trainer.studies.power import powers
from trainer.studies.statistics import Difference, difference
from trainer.studies.study import Comparison, Study
from unijudge.errors import DataError
from unijudge.pages.charts import SERIES, curves
from unijudge.pages.markdown import table
from unijudge.pages.pages import page
from unijudge.storage.files import publish_text

Readings = Mapping[RowKey, Mapping[int, CellReading]]
FEW_SEEDS = 5


@dataclass(frozen=True)
class StudyFinding:
    """The result of a comparison for one measure, at one combination of the other axes."""

    name: str
    measure: str
    claim: str
    others: str
    """The combination of the other axes. Empty if there is no other axis."""
    difference: Difference
    paper: str | None

    @property
    def sentence(self) -> str:
        """The sentence of the finding: claim, verdict and numbers.

        Example:
            >>> found = Difference(0.02, 5, (0.01, 0.03), (0.005, 0.035))
            >>> claim = "Mined negatives, against random ones,"
            >>> StudyFinding("mined", "precision@1", claim, "", found, "helps").sentence
            'Mined negatives, against random ones, helped: precision@1 +0.020, [+0.010, +0.030] over 5 seeds, [+0.005, \
+0.035] over queries.'
        """
        where = f" ({self.others})" if self.others else ""
        return f"{self.claim}{where} {_VERDICT[self.difference.finding]}: {self.measure} {_numbers(self.difference)}."

    @property
    def agreement(self) -> str:
        """The agreement of the finding with the paper."""
        expected = {"helps": "helped", "harms": "did harm"}.get(self.paper or "")
        if expected is None:
            return "–"
        finding = self.difference.finding
        if finding == expected:
            return "agrees"
        return "undecided" if finding in ("no effect", "not settled") else "does not agree"


_VERDICT = {
    "helped": "helped",
    "did harm": "did harm",
    "no effect": "did not show an effect",
    "not settled": "cannot be decided from one seed",
}


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
        findings = []
        for name, comparison in self.study.comparisons.items():
            for measure, readings in self.measured.items():
                findings += _compared(name, comparison, measure, readings)
        return findings


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
) -> list[StudyFinding]:
    made = []
    for row, right in readings.items():
        step, labels = row[0], dict(row[1])
        others = {axis: label for axis, label in labels.items() if axis != comparison.axis}
        if (
            labels.get(comparison.axis) != comparison.right
            or not comparison.where.items() <= others.items()
        ):
            continue
        baseline = labels | {comparison.axis: comparison.left}
        left = readings.get((step, tuple(baseline.items())))
        change = difference(left, right) if left else None
        if change is not None:
            at = ", ".join(
                f"{axis} {label}" for axis, label in others.items() if axis not in comparison.where
            )
            made.append(StudyFinding(name, measure, comparison.claim, at, change, comparison.paper))
    return made


def write_study_report(plan: Plan) -> list[str]:
    """Writes report.html, table.md and finished.jsonl into the study's folder, and returns the sentences.

    Raises:
        DataError: No measured cell is finished.
    """
    results = Results.of(plan)
    findings = results.findings()
    power_notes = powers(
        [(finding.measure, finding.difference) for finding in findings], plan.study.detect
    )
    write_finished(plan.out, results.finished.values())
    publish_text(plan.out / "table.md", markdown(results, findings, power_notes))
    text = page(
        Path(__file__).with_name("report.html.jinja"),
        title=plan.study.question,
        results=results,
        head=_head(results),
        table=[(row_name(row), _cells(results, row)) for row in results.rows()],
        charts=_charts(results),
        findings=findings,
        powers=power_notes,
        few=len(plan.study.seeds) < FEW_SEEDS,
    )
    publish_text(plan.out / "report.html", text)
    return [*(finding.sentence for finding in findings), *power_notes]


def markdown(results: Results, findings: list[StudyFinding], power_notes: list[str]) -> str:
    """Returns the table and the sentences as Markdown."""
    return (
        "\n".join([f"# {results.study.question}", "", *_table(results, findings, power_notes)])
        + "\n"
    )


def summary(plans: Mapping[str, Plan]) -> str:
    """Returns the Markdown text of several studies: the agreement with the paper, then the table of each study.

    Args:
        plans: Name → study. A study without results is listed as not run yet.
    """
    agreements, tables = [], []
    for name, plan in plans.items():
        tables += ["", f"## {name}: {plan.study.question}", ""]
        try:
            results = Results.of(plan)
        except DataError:
            tables.append(f"Not run yet ({len(plan.cells)} steps).")
            continue
        findings = results.findings()
        power_notes = powers(
            [(finding.measure, finding.difference) for finding in findings], plan.study.detect
        )
        tables += _table(results, findings, power_notes)
        agreements += [
            [name, finding.sentence, finding.agreement]
            for finding in findings
            if finding.paper is not None
        ]
    agreement = table(["study", "finding", "with the paper"], agreements)
    return "\n".join(["## What agrees with the paper", "", agreement, *tables]) + "\n"


def _table(results: Results, findings: list[StudyFinding], power_notes: list[str]) -> list[str]:
    rows = [[row_name(row), *_cells(results, row)] for row in results.rows()]
    lines = [_coverage(results), "", table(["", *_head(results)], rows), ""]
    lines += [f"- {finding.sentence} Paper: {finding.agreement}." for finding in findings]
    lines += [f"- {sentence}" for sentence in power_notes]
    return lines


def row_name(row: RowKey) -> str:
    """Returns the name of a row.

    Example:
        >>> row_name(("student", (("negatives", "random"), ("loss", "infonce")))), row_name(("base", ()))
        ('student: negatives random, loss infonce', 'base')
    """
    step, labels = row
    values = ", ".join(f"{axis} {label}" for axis, label in labels)
    return ": ".join(filter(None, (step, values))) or "all"


def spread(readings: Mapping[int, CellReading]) -> str:
    """Returns mean ± standard deviation over the seeds, and the number of seeds.

    Example:
        >>> spread({0: CellReading(0.5), 1: CellReading(0.7)}), spread({0: CellReading(0.5)})
        ('0.600 ± 0.141 (2)', '0.500 (1)')
    """
    values = np.array([reading.value for reading in readings.values()])
    deviation = f" ± {values.std(ddof=1):.3f}" if len(values) > 1 else ""
    return f"{values.mean():.3f}{deviation} ({len(values)})"


def _head(results: Results) -> list[str]:
    return list(results.measured)


def _cells(results: Results, row: RowKey) -> list[str]:
    by_measure = (readings.get(row) for readings in results.measured.values())
    return [spread(readings) if readings else "–" for readings in by_measure]


def _coverage(results: Results) -> str:
    seeds = ", ".join(map(str, results.study.seeds))
    done = len(results.finished)
    return (
        f"{done} of {results.cells} steps are finished, with the seeds {seeds}. Numbers are mean ± standard "
        "deviation (number of seeds)."
    )


def _numbers(found: Difference) -> str:
    text = f"{found.value:+.3f}"
    if found.over_seeds:
        text += f", {_interval(found.over_seeds)} over {found.seeds} seeds"
    if found.over_queries:
        text += f", {_interval(found.over_queries)} over queries"
    return text


def _interval(ends: tuple[float, float]) -> str:
    return f"[{ends[0]:+.3f}, {ends[1]:+.3f}]"


def _charts(results: Results) -> list[tuple[str, object]]:
    """Returns a chart for each axis of numbers and each measure, with a line for each combination of the other axes."""
    made: list[tuple[str, object]] = []
    for axis in results.study.axes:
        if (
            not all(map(_is_number, results.study.values(axis)))
            or len(results.study.values(axis)) < 2
        ):
            continue
        for measure, readings in results.measured.items():
            lines = dict(list(_lines(axis, readings).items())[:SERIES])
            if lines:
                made.append((f"{measure} by {axis}", curves(lines, x_label=axis, y_label=measure)))
    return made


def _lines(axis: str, readings: Readings) -> dict[str, list[tuple[float, float]]]:
    lines: dict[str, list[tuple[float, float]]] = {}
    for row, by_seed in readings.items():
        labels = dict(row[1])
        if axis in labels:
            x = float(labels.pop(axis))
            name = (
                ", ".join(f"{other} {label}" for other, label in labels.items()) or row[0] or "all"
            )
            mean = float(np.mean([reading.value for reading in by_seed.values()]))
            lines.setdefault(name, []).append((x, mean))
    return {name: sorted(points) for name, points in lines.items()}


def _is_number(label: str) -> bool:
    try:
        float(label)
    except ValueError:
        return False
    return True
