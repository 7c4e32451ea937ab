"""Writes the page of a measurement, in Markdown."""

from collections.abc import Mapping, Sequence

from bench.gpu.lines import without_paths
from bench.gpu.running import Outcomes
from bench.gpu.step import NOT_MEASURED, Outcome, Step, number
from unijudge.pages.markdown import table


def page(
    title: str, about: str, machine: Mapping[str, str], steps: Sequence[Step], outcomes: Outcomes
) -> str:
    """Returns the whole page.

    Args:
        title: The heading of the page.
        about: Sentences about how the page was made.
        machine: Names and values that describe the machine.
        steps: The steps that ran.
        outcomes: The outcomes of all cases of these steps.
    """
    parts = [f"# {title}", about, "## Machine", table(["", "found"], machine.items())]
    parts += ["## Outcome", _outcome_table(steps, outcomes)]
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
    for one in step.tables(outcomes):
        parts.append(table(one.header, one.rows))
        if one.note:
            parts.append(one.note)
    return parts


def _outcome_table(steps: Sequence[Step], outcomes: Outcomes) -> str:
    rows = []
    for step in steps:
        for name, case in step.cases.items():
            outcome = outcomes[step.name][name]
            state = outcome.state if not outcome.cause else f"{outcome.state}: {outcome.cause}"
            rows.append([step.title, case.title, number(outcome.seconds, ".1f"), state])
    return table(["step", "case", "time including start, s", "outcome"], rows)
