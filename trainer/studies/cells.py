"""Which runs a study consists of: each step, for each value of each axis that it depends on, and for each seed.

Two runs that would do the same are one: a step that names neither an axis nor the seed, and no step that does, runs
once, and every other step uses its output.
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
    """Axis → the value's label, and `seed` → the seed: what this run depends on."""
    command: str
    """With every placeholder filled but {service} and {results}, the study's folder."""
    service: str | None
    """The same of the service; {port} is still open."""
    needs: tuple[str, ...]
    """Names of the cells whose outputs it reads."""
    digest: str
    """Hash of the commands of this cell and of all that it needs: equal digests, equal results."""

    @property
    def name(self) -> str:
        """Its output, relative to the folder of results.

        Example:
            >>> Cell("student", {"k": "8", "seed": "0"}, "", None, (), "").name
            'student/k=8,seed=0'
        """
        return str(PurePosixPath(self.step, place(self.labels)))

    @property
    def seed(self) -> int:
        """−1 for what all seeds share: it comes first."""
        return int(self.labels.get(SEED, -1))


def place(labels: Mapping[str, str]) -> str:
    """A file's name for some values."""
    return ",".join(f"{axis}={label}" for axis, label in labels.items()) or "all"


def cells_of(study: Study) -> dict[str, Cell]:
    """Name → cell, each after all that it needs.

    Raises:
        SettingsError: A placeholder has no value, steps need one another in a circle, or a step writes no output.
    """
    needs = {step: _steps_in(study, step) for step in study.steps}
    axes: dict[str, list[str]] = {}
    made: dict[str, Cell] = {}
    for step in _in_order(needs):
        # What the steps before it depend on, it depends on too.
        used = set(_words(study, step)).union(*(axes[other] for other in needs[step]))
        axes[step] = [axis for axis in (*study.axes, SEED) if axis in used]
        for labels in _combinations(study, axes[step]):
            cell = _cell(study, step, labels, {other: made[_name(other, labels, axes[other])] for other in needs[step]})
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
    # Where the results lie, and the service's address, are known when it runs.
    for later in (SERVICE, PORT, RESULTS):
        values[later] = f"{{{later}}}"
    command = settings.command.format_map(values)
    service = settings.service.format_map(values) if settings.service else None
    text = "\n".join([command, service or "", *(cell.digest for cell in needed.values())])
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return Cell(step, labels, command, service, tuple(cell.name for cell in needed.values()), digest)


def _words(study: Study, step: str) -> list[str]:
    """The placeholders of a step.

    Raises:
        SettingsError: One has no value.
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
                f"steps.{step}: {{{shown_name(word)}}} has no value. Add it to names, or use one of: {listed(known)}"
            )
    if OUT not in words:
        raise SettingsError(f"steps.{step}: {{out}} is not in its command. Let the command write to {{out}}")
    return words


def _steps_in(study: Study, step: str) -> list[str]:
    """The steps whose outputs a step reads."""
    return [word for word in dict.fromkeys(_words(study, step)) if word in study.steps]


def _in_order(needs: Mapping[str, list[str]]) -> list[str]:
    try:
        return list(TopologicalSorter(needs).static_order())
    except CycleError as error:
        circle = " → ".join(reversed(error.args[1]))
        raise SettingsError(f"steps: {circle} need one another. Take one of these placeholders out") from error


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
    """The cell of another step with the same values."""
    return str(PurePosixPath(step, place({axis: labels[axis] for axis in axes})))
