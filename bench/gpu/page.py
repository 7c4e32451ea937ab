"""Writes the page of a measurement, in Markdown."""

from collections.abc import Mapping, Sequence

from bench.gpu.lines import without_paths
from bench.gpu.running import Outcomes
from bench.gpu.step import NOT_MEASURED, Outcome, Step, Table, number


def page(title: str, about: str, machine: Mapping[str, str], steps: Sequence[Step], outcomes: Outcomes) -> str:
    """Returns the whole page.

    Args:
        title: The heading of the page.
        about: Sentences about how the page was made.
        machine: Names and values that describe the machine.
        steps: The steps that ran.
        outcomes: The outcomes of all cases of these steps.
    """
    parts = [f"# {title}", about, "## Machine", _table(Table(["", "found"], list(machine.items())))]
    parts += ["## Outcome", _table(_outcome_table(steps, outcomes))]
    for step in steps:
        parts += [f"## {step.title}", step.about]
        parts += _step_tables(step, outcomes[step.name])
    return without_paths("\n\n".join(parts)) + "\n"


def _step_tables(step: Step, outcomes: Mapping[str, Outcome]) -> list[str]:
    """Returns the tables of a step and their notes, or one sentence if nothing was measured."""
    if not any(outcome.figures for outcome in outcomes.values()):
        causes = dict.fromkeys(f"{outcome.state}: {outcome.cause}" for outcome in outcomes.values())
        return [f"{NOT_MEASURED.capitalize()} ({'; '.join(causes)})."]
    parts = []
    for table in step.tables(outcomes):
        parts.append(_table(table))
        if table.note:
            parts.append(table.note)
    return parts


def _outcome_table(steps: Sequence[Step], outcomes: Outcomes) -> Table:
    rows = []
    for step in steps:
        for name, case in step.cases.items():
            outcome = outcomes[step.name][name]
            state = outcome.state if not outcome.cause else f"{outcome.state}: {outcome.cause}"
            rows.append([step.title, case.title, number(outcome.seconds, ".1f"), state])
    return Table(["step", "case", "time including start, s", "outcome"], rows)


def _table(table: Table) -> str:
    lines = [_line(table.header), _line(["---"] * len(table.header))]
    lines += [_line(row) for row in table.rows]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    escaped = [" ".join(str(cell).split()).replace("|", "\\|") for cell in cells]
    return f"| {' | '.join(escaped)} |"
