"""What a study found: a table in Markdown, and a page with the same table, curves and sentences.

Sentences are made from the numbers. A study that is half done has a report too: it says how many seeds are in it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainer.studies.measures import CellReading, RowKey, read_measure
from trainer.studies.power import powers
from trainer.studies.run import Plan
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
    """One comparison of one measure, at one combination of the other axes."""

    name: str
    measure: str
    claim: str
    others: str
    """The combination; empty if there is no other axis."""
    difference: Difference
    paper: str | None

    @property
    def sentence(self) -> str:
        """Subject, verdict, numbers.

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
        """With the paper."""
        said = {"helps": "helped", "harms": "did harm"}.get(self.paper or "")
        if said is None:
            return "–"
        found = self.difference.finding
        if found == said:
            return "agrees"
        return "cannot be told" if found in ("no effect", "not settled") else "does not agree"


_VERDICT = {
    "helped": "helped",
    "did harm": "did harm",
    "no effect": "did not show an effect",
    "not settled": "is not settled by one seed",
}


@dataclass(frozen=True)
class Results:
    """Everything that was measured in a study so far."""

    study: Study
    done: int
    cells: int
    measured: Mapping[str, Readings]
    """Measure → row → seed → reading."""

    @classmethod
    def of(cls, plan: Plan) -> "Results":
        """Reads the outputs that are there.

        Raises:
            DataError: No cell that is measured is done, or a file has not what is measured.
        """
        cells = [plan.cells[name] for name in plan.cells if name in plan.done]
        measured = {name: read_measure(measure, cells, plan.out) for name, measure in plan.study.measures.items()}
        if not any(measured.values()):
            raise DataError(f"{plan.out}: nothing that the study measures is there yet. Run the study first")
        return cls(plan.study, len(cells), len(plan.cells), measured)

    def rows(self) -> list[RowKey]:
        """In the order of the study."""
        return list(dict.fromkeys(row for readings in self.measured.values() for row in readings))

    def findings(self) -> list[StudyFinding]:
        """Each comparison, for each measure and each combination of the other axes."""
        found = []
        for name, comparison in self.study.comparisons.items():
            for measure, readings in self.measured.items():
                found += _compared(name, comparison, measure, readings)
        return found


def _compared(name: str, comparison: Comparison, measure: str, readings: Readings) -> list[StudyFinding]:
    made = []
    for row, right in readings.items():
        step, labels = row[0], dict(row[1])
        others = {axis: label for axis, label in labels.items() if axis != comparison.axis}
        if labels.get(comparison.axis) != comparison.right or not comparison.where.items() <= others.items():
            continue
        wanted = labels | {comparison.axis: comparison.left}
        left = readings.get((step, tuple(wanted.items())))
        found = difference(left, right) if left else None
        if found is not None:
            at = ", ".join(f"{axis} {label}" for axis, label in others.items() if axis not in comparison.where)
            made.append(StudyFinding(name, measure, comparison.claim, at, found, comparison.paper))
    return made


def write_study_report(plan: Plan) -> list[str]:
    """Writes report.html and table.md into the study's folder; returns the sentences.

    Raises:
        DataError: Nothing was measured yet.
    """
    results = Results.of(plan)
    findings = results.findings()
    told = powers([(found.measure, found.difference) for found in findings], plan.study.detect)
    publish_text(plan.out / "table.md", markdown(results, findings, told))
    text = page(
        Path(__file__).with_name("report.html.jinja"),
        title=plan.study.question,
        results=results,
        head=_head(results),
        table=[(row_name(row), _cells(results, row)) for row in results.rows()],
        charts=_charts(results),
        findings=findings,
        powers=told,
        few=len(plan.study.seeds) < FEW_SEEDS,
    )
    publish_text(plan.out / "report.html", text)
    return [*(finding.sentence for finding in findings), *told]


def markdown(results: Results, findings: list[StudyFinding], told: list[str]) -> str:
    """The table and the sentences, as Markdown."""
    return "\n".join([f"# {results.study.question}", "", *_table(results, findings, told)]) + "\n"


def summary(plans: Mapping[str, Plan]) -> str:
    """Several studies in one Markdown text: first what agrees with the paper, then the table of each study.

    Args:
        plans: Name → study; those without results are named as such.
    """
    agreed, told = [], []
    for name, plan in plans.items():
        told += ["", f"## {name}: {plan.study.question}", ""]
        try:
            results = Results.of(plan)
        except DataError:
            told.append(f"Not run yet ({len(plan.cells)} steps).")
            continue
        findings = results.findings()
        powered = powers([(found.measure, found.difference) for found in findings], plan.study.detect)
        told += _table(results, findings, powered)
        agreed += [[name, found.sentence, found.agreement] for found in findings if found.paper is not None]
    agreement = table(["study", "finding", "with the paper"], agreed)
    return "\n".join(["## What agrees with the paper", "", agreement, *told]) + "\n"


def _table(results: Results, findings: list[StudyFinding], told: list[str]) -> list[str]:
    rows = [[row_name(row), *_cells(results, row)] for row in results.rows()]
    lines = [_coverage(results), "", table(["", *_head(results)], rows), ""]
    lines += [f"- {finding.sentence} Paper: {finding.agreement}." for finding in findings]
    lines += [f"- {sentence}" for sentence in told]
    return lines


def row_name(row: RowKey) -> str:
    """What a row is called.

    Example:
        >>> row_name(("student", (("negatives", "random"), ("loss", "infonce")))), row_name(("base", ()))
        ('student: negatives random, loss infonce', 'base')
    """
    step, labels = row
    values = ", ".join(f"{axis} {label}" for axis, label in labels)
    return ": ".join(filter(None, (step, values))) or "all"


def spread(readings: Mapping[int, CellReading]) -> str:
    """Mean ± deviation over seeds, and their number.

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
    found = (readings.get(row) for readings in results.measured.values())
    return [spread(readings) if readings else "–" for readings in found]


def _coverage(results: Results) -> str:
    seeds = ", ".join(map(str, results.study.seeds))
    return f"{results.done} of {results.cells} steps are done; seeds {seeds}. Mean ± standard deviation over (seeds)."


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
    """One for each axis of numbers and each measure: a line for each combination of the other axes."""
    made: list[tuple[str, object]] = []
    for axis in results.study.axes:
        if not all(map(_is_number, results.study.values(axis))) or len(results.study.values(axis)) < 2:
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
            name = ", ".join(f"{other} {label}" for other, label in labels.items()) or row[0] or "all"
            mean = float(np.mean([reading.value for reading in by_seed.values()]))
            lines.setdefault(name, []).append((x, mean))
    return {name: sorted(points) for name, points in lines.items()}


def _is_number(label: str) -> bool:
    try:
        float(label)
    except ValueError:
        return False
    return True
