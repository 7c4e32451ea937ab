"""The plan of a study: its cells, which of them are finished, and what their outputs measure."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from pydantic import BaseModel, ConfigDict

from trainer.studies.cells import Cell, cells_of
from trainer.studies.commands import check_commands
from trainer.studies.finished import FINISHED, FinishedMeasure, FinishedStep, read_finished
from trainer.studies.measures import NoNumber, read_measure
from trainer.studies.study import Study
from unijudge.errors import DataError, SettingsError
from unijudge.provenance import Provenance
from unijudge.shown import shown
from unijudge.storage.files import read_json
from unijudge.storage.locations import is_local
from unijudge.storage.stores import exists


class Question(BaseModel):
    """The content of study.json: the question of the study whose results are in the folder."""

    model_config = ConfigDict(title="study's name")

    question: str


class Record(BaseModel):
    """The content of NAME.json next to an output: the command that made the output, and its time."""

    model_config = ConfigDict(title="record of a study's step")

    digest: str
    command: str
    seconds: float
    made: Provenance


@dataclass(frozen=True)
class Plan:
    """A study, its cells, and the finished cells."""

    study: Study
    cells: Mapping[str, Cell]
    """Name → cell, with each cell after all cells that it needs."""
    out: Path
    outputs: frozenset[str]
    """The names of the cells whose outputs are in the folder of results."""
    elsewhere: Mapping[str, FinishedStep]
    """Name → a cell that finished on another machine, and whose output no unfinished cell needs."""

    @classmethod
    def of(cls, study: Study, out: Path) -> "Plan":
        """Makes all checks that are possible before the first step runs.

        Raises:
            SettingsError: The study cannot run, with the step and the reason, or the folder holds another study.
            DataError: The folder holds results of other settings.
        """
        if not is_local(out):
            raise SettingsError(
                f"{out}: the results of a study must be on a local disk, since its commands write logs. Give a local "
                "folder"
            )
        cells = cells_of(study)
        check_commands(cells.values())
        _check_folder(study, out)
        outputs = frozenset(name for name, cell in cells.items() if _has_output(out, cell))
        return cls(study, cells, out, outputs, _finished_elsewhere(study, cells, out, outputs))

    @property
    def done(self) -> frozenset[str]:
        """The names of the cells that need not run."""
        return self.outputs.union(self.elsewhere)

    def left(self) -> list[Cell]:
        """Returns the unfinished cells, seed by seed, so that an interrupted study has complete seeds."""
        left = [cell for name, cell in self.cells.items() if name not in self.done]
        return sorted(left, key=lambda cell: cell.seed)

    def seconds(self) -> dict[str, float | None]:
        """Returns step → seconds of a run: the mean of the finished runs, or the study's value if no run finished."""
        measured: dict[str, list[float]] = {step: [] for step in self.study.steps}
        for name in self.outputs:
            record = read_json(record_path(self.out, self.cells[name]), Record)
            measured[self.cells[name].step].append(record.seconds)
        for name, finished in self.elsewhere.items():
            measured[self.cells[name].step].append(finished.seconds)
        return {
            step: fmean(times) if times else self.study.steps[step].seconds
            for step, times in measured.items()
        }

    def finished(self) -> dict[str, FinishedStep]:
        """Returns name → finished cell, in the order of the cells, with the measures of its output.

        Raises:
            DataError: A measured file is missing or damaged, or no finished output has the number of a measure.
        """
        lacking: dict[str, NoNumber] = {}
        finished = {}
        for name in filter(self.done.__contains__, self.cells):
            if name in self.outputs:
                finished[name] = self._measured(self.cells[name], lacking)
            else:
                finished[name] = self.elsewhere[name]
        # A training without lists has no listwise loss. But a number that every output lacks is a wrong key.
        for measure, error in lacking.items():
            if not any(step.measures.get(measure) for step in finished.values()):
                raise error
        return finished

    def _measured(self, cell: Cell, lacking: dict[str, NoNumber]) -> FinishedStep:
        """Reads the output of a cell. Adds an error to `lacking` for each measure without a number."""
        record = read_json(record_path(self.out, cell), Record)
        measures: dict[str, FinishedMeasure | None] = {}
        for name in _measures_of(self.study, cell):
            try:
                reading = read_measure(self.study.measures[name], self.out / cell.name)
            except NoNumber as error:
                lacking.setdefault(name, error)
                measures[name] = None
            else:
                measures[name] = FinishedMeasure.of(reading)
        return FinishedStep(
            name=cell.name,
            digest=cell.digest,
            seconds=round(record.seconds, 1),
            created=record.made.created,
            measures=measures,
        )


def record_path(out: Path, cell: Cell) -> Path:
    """Returns the file with the record of a cell."""
    return out / f"{cell.name}.json"


def _has_output(out: Path, cell: Cell) -> bool:
    """Returns whether the output of a cell exists and was made by the same commands.

    Raises:
        DataError: The output was made by other commands.
    """
    path = record_path(out, cell)
    if not exists(path) or not exists(out / cell.name):
        return False
    if read_json(path, Record).digest == cell.digest:
        return True
    raise DataError(
        f"{out / cell.name}: this output, or one of its inputs, was made with other settings than the study has now. "
        "Delete this output to make it again, or give another folder for the results"
    )


def _finished_elsewhere(
    study: Study, cells: Mapping[str, Cell], out: Path, outputs: frozenset[str]
) -> dict[str, FinishedStep]:
    """Returns name → a cell of finished.jsonl without an output here, if no unfinished cell needs its output.

    Raises:
        DataError: A line was made by other commands, or is damaged.
    """
    lines = read_finished(out)
    elsewhere: dict[str, FinishedStep] = {}
    needed: set[str] = set()
    for name in reversed(list(cells)):
        cell = cells[name]
        if name in outputs:
            continue
        if name not in needed and _is_known(study, cell, out, lines.get(name)):
            elsewhere[name] = lines[name]
        else:
            needed.update(cell.needs)
    return elsewhere


def _is_known(study: Study, cell: Cell, out: Path, line: FinishedStep | None) -> bool:
    """Returns whether a line of finished.jsonl has all that the study measures in a cell.

    A cell that has a record but no output was made here and deleted, so that it runs again.
    """
    if line is None or exists(record_path(out, cell)):
        return False
    if line.digest != cell.digest:
        raise DataError(
            f"{out / FINISHED}: {cell.name} was made with other settings than the study has now. Delete its line, so "
            "that the step runs again"
        )
    return line.measures.keys() >= set(_measures_of(study, cell))


def _measures_of(study: Study, cell: Cell) -> list[str]:
    return [name for name, measure in study.measures.items() if cell.step in measure.steps]


def _check_folder(study: Study, out: Path) -> None:
    path = out / "study.json"
    if not exists(path):
        return
    question = read_json(path, Question).question
    if question != study.question:
        raise SettingsError(
            f"{out}: holds the results of another study ({shown(question)}). Give another folder for the results"
        )
