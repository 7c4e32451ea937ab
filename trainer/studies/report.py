"""The report of a study: a text in Markdown, and a page with the same tables, curves and sentences.

The program writes the sentences from the numbers. An unfinished study has a report as well, which gives the number of
finished steps and seeds.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from trainer.studies.findings import Readings, Results, StudyFinding, powers
from trainer.studies.finished import write_finished
from trainer.studies.measures import CellReading, RowKey
from trainer.studies.plan import Plan
from unijudge.errors import DataError
from unijudge.pages.charts import SERIES, curves
from unijudge.pages.markdown import table
from unijudge.pages.pages import page
from unijudge.storage.files import publish_text

FEW_SEEDS = 5
FINDING_COLUMNS = (
    "comparison", "measure", "difference", "95 % over seeds", "95 % over queries", "verdict", "with the paper",
)  # fmt: skip
CLAIM_COLUMNS = (
    "study", "claim of the paper", "measure", "difference", "95 % over seeds", "95 % over queries", "with the paper",
)  # fmt: skip


def write_study_report(plan: Plan) -> list[str]:
    """Writes report.html, table.md and finished.jsonl into the study's folder, and returns the sentences.

    Raises:
        DataError: No measured cell is finished.
    """
    results = Results.of(plan)
    findings = results.findings()
    power_notes = powers(findings, plan.study.detect)
    write_finished(plan.out, results.finished.values())
    publish_text(plan.out / "table.md", markdown(results))
    text = page(
        Path(__file__).with_name("report.html.jinja"),
        title=plan.study.question,
        results=results,
        head=list(results.measured),
        table=[(row_name(row), _cells(results, row)) for row in results.rows()],
        charts=_charts(results),
        finding_columns=FINDING_COLUMNS,
        findings=list(map(_finding_row, findings)),
        answers=results.answers(),
        powers=power_notes,
        few=len(plan.study.seeds) < FEW_SEEDS,
    )
    publish_text(plan.out / "report.html", text)
    return [*(finding.sentence for finding in findings), *power_notes]


def markdown(results: Results) -> str:
    """Returns the tables and the sentences of a study as Markdown."""
    return "\n".join([f"# {results.study.question}", "", *_section(results)]) + "\n"


def summary(plans: Mapping[str, Plan]) -> str:
    """Returns the Markdown text of several studies: the agreement with the paper, then the tables of each study.

    Args:
        plans: Name → study. A study without results is listed as not run yet.
    """
    claims: list[list[str]] = []
    sections: list[str] = []
    for name, plan in plans.items():
        sections += ["", f"## {name}: {plan.study.question}", ""]
        try:
            results = Results.of(plan)
        except DataError:
            sections.append(f"Not run yet ({len(plan.cells)} steps).")
            continue
        sections += _section(results)
        for finding in results.findings():
            if finding.comparison.paper is not None:
                row = [name, finding.claim, finding.measure, *finding.numbers, finding.agreement]
                claims.append(row)
    agreement = table(CLAIM_COLUMNS, claims)
    return "\n".join(["## What agrees with the paper", "", agreement, *sections]) + "\n"


def _section(results: Results) -> list[str]:
    """Returns the lines of one study: all runs, all findings, and the answer."""
    findings = results.findings()
    rows = [[row_name(row), *_cells(results, row)] for row in results.rows()]
    lines = [_coverage(results), "", table(["", *results.measured], rows)]
    if findings:
        lines += ["", table(FINDING_COLUMNS, map(_finding_row, findings))]
    notes = powers(findings, results.study.detect)
    if notes:
        lines += ["", *notes]
    answers = results.answers()
    if answers:
        lines += ["", "**Answer**", "", *(f"- {answer}" for answer in answers)]
    return lines


def _finding_row(finding: StudyFinding) -> list[str]:
    return [
        finding.claim,
        finding.measure,
        *finding.numbers,
        finding.verdict,
        finding.agreement,
    ]


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


def _charts(results: Results) -> list[tuple[str, object]]:
    """Returns a chart for each axis of numbers and each measure, with a line for each combination of the other axes."""
    made: list[tuple[str, object]] = []
    for axis in results.study.axes:
        labels = results.study.values(axis)
        if len(labels) < 2 or not all(map(_is_number, labels)):
            continue
        for measure, readings in results.measured.items():
            lines = dict(list(_lines(axis, readings).items())[:SERIES])
            if lines:
                made.append((f"{measure} by {axis}", curves(lines, x_label=axis, y_label=measure)))
    return made


def _lines(axis: str, readings: Readings) -> dict[str, list[tuple[float, float]]]:
    """Returns the name of each line and its points (value of the axis, mean over the seeds)."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for row, by_seed in readings.items():
        step, labels = row[0], dict(row[1])
        if axis in labels:
            x = float(labels.pop(axis))
            others = ", ".join(f"{other} {label}" for other, label in labels.items())
            mean = float(np.mean([reading.value for reading in by_seed.values()]))
            lines.setdefault(others or step or "all", []).append((x, mean))
    return {name: sorted(points) for name, points in lines.items()}


def _is_number(label: str) -> bool:
    try:
        float(label)
    except ValueError:
        return False
    return True
