"""The runs of a study: each step for each value of each axis on which the step depends, and for each seed.

Equal runs are not repeated. A step runs only once if neither the step nor any step that it needs names an axis or the
seed. All other steps then use the same output.
"""

import hashlib
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import PurePosixPath

from trainer.studies.study import OUT, PORT, RESULTS, SEED, SERVICE, Study, placeholders
from unijudge.errors import SettingsError
from unijudge.shown import listed, shown_name


@dataclass(frozen=True)
class Cell:
    """One run of one step."""

    step: str
    labels: Mapping[str, str]
    """Axis → label of its value, and `seed` → the seed, for each axis on which this run depends."""
    command: str
    """The command with all placeholders filled except {service} and {results}, the folder of the study."""
    service: str | None
    """The command of the judge service with all placeholders filled except {port}, {service} and {results}."""
    needs: tuple[str, ...]
    """The names of the cells whose outputs this cell reads."""
    digest: str
    """The hash of the commands of this cell and of all cells that it needs. Equal digests mean equal results."""

    @property
    def name(self) -> str:
        """The path of the output, relative to the folder of results.

        Example:
            >>> Cell("student", {"k": "8", "seed": "0"}, "", None, (), "").name
            'student/k=8,seed=0'
        """
        return str(PurePosixPath(self.step, place(self.labels)))

    @property
    def seed(self) -> int:
        """The seed, or −1 for a cell that all seeds share. Shared cells thus come first in the order of seeds."""
        return int(self.labels.get(SEED, -1))


def place(labels: Mapping[str, str]) -> str:
    """Returns the file name for a combination of values."""
    return ",".join(f"{axis}={label}" for axis, label in labels.items()) or "all"


def cells_of(study: Study) -> dict[str, Cell]:
    """Returns name → cell, with each cell after all cells that it needs.

    Raises:
        SettingsError: A placeholder has no value, steps need each other in a cycle, or a step writes no output.
    """
    needs = {step: _steps_in(study, step) for step in study.steps}
    axes: dict[str, list[str]] = {}
    made: dict[str, Cell] = {}
    for step in _in_order(needs):
        # A step also depends on the axes of the steps that it needs.
        used = set(_words(study, step)).union(*(axes[other] for other in needs[step]))
        axes[step] = [axis for axis in (*study.axes, SEED) if axis in used]
        for labels in _combinations(study, axes[step]):
            cell = _cell(
                study,
                step,
                labels,
                {other: made[_name(other, labels, axes[other])] for other in needs[step]},
            )
            made[cell.name] = cell
    return made


def _cell(study: Study, step: str, labels: Mapping[str, str], needed: Mapping[str, Cell]) -> Cell:
    settings = study.steps[step]
    values = dict(study.names)
    for axis, label in labels.items():
        values[axis] = label if axis == SEED else study.values(axis)[label]
    for other, cell in needed.items():
        values[other] = f"{{{RESULTS}}}/{cell.name}"
    values[OUT] = f"{{{RESULTS}}}/{step}/{place(labels)}"
    # The folder of results and the address of the service are known only when the cell runs.
    for later in (SERVICE, PORT, RESULTS):
        values[later] = f"{{{later}}}"
    command = settings.command.format_map(values)
    service = settings.service.format_map(values) if settings.service else None
    text = "\n".join([command, service or "", *(cell.digest for cell in needed.values())])
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return Cell(
        step, labels, command, service, tuple(cell.name for cell in needed.values()), digest
    )


def _words(study: Study, step: str) -> list[str]:
    """Returns the placeholders of a step.

    Raises:
        SettingsError: A placeholder has no value, or {out} is missing.
    """
    settings = study.steps[step]
    try:
        words = placeholders(settings.command)
        words += placeholders(settings.service or "")
    except ValueError as error:
        raise SettingsError(f"steps.{step}: {error}") from error
    known = {OUT, SEED, *study.names, *study.axes, *study.steps}
    if settings.service:
        known |= {SERVICE, PORT}
    for word in words:
        if word not in known:
            raise SettingsError(
                f"steps.{step}: {{{shown_name(word)}}} has no value. Add it to names, or use one of {listed(known)}"
            )
    if OUT not in words:
        raise SettingsError(
            f"steps.{step}: the command lacks {{out}}. Let the command write to {{out}}"
        )
    return words


def _steps_in(study: Study, step: str) -> list[str]:
    """Returns the steps whose outputs a step reads."""
    return [word for word in dict.fromkeys(_words(study, step)) if word in study.steps]


def _in_order(needs: Mapping[str, list[str]]) -> list[str]:
    try:
        return list(TopologicalSorter(needs).static_order())
    except CycleError as error:
        cycle = " → ".join(reversed(error.args[1]))
        raise SettingsError(
            f"steps: {cycle} need each other in a cycle. Remove one of these placeholders"
        ) from error


def _combinations(study: Study, axes: list[str]) -> Iterator[dict[str, str]]:
    seeds = [str(seed) for seed in study.seeds]
    values = [seeds if axis == SEED else list(study.values(axis)) for axis in axes]
    for chosen in itertools.product(*values):
        labels = dict(zip(axes, chosen, strict=True))
        if not _is_left_out(study, labels):
            yield labels


def _is_left_out(study: Study, labels: Mapping[str, str]) -> bool:
    return any(combination.items() <= labels.items() for combination in study.leave_out)


def _name(step: str, labels: Mapping[str, str], axes: list[str]) -> str:
    """Returns the name of the cell of another step with the same values."""
    return str(PurePosixPath(step, place({axis: labels[axis] for axis in axes})))
