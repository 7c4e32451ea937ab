"""Runs the unfinished steps of a study in parallel. A step starts when all outputs that it needs exist.

Next to each output is a record (`NAME.json`) with the digest of the commands that made the output. A step does not run
again if its record has the same digest.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean

from pydantic import BaseModel, ConfigDict

from trainer.studies.cells import Cell, cells_of
from trainer.studies.commands import check_commands
from trainer.studies.engines import Runner
from trainer.studies.process import CellJob, Ended
from trainer.studies.study import Study
from unijudge.errors import DataError, SettingsError
from unijudge.provenance import Provenance
from unijudge.shown import shown
from unijudge.storage.files import publish_json, read_json
from unijudge.storage.leases import lease
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


@dataclass
class StudyProgress:
    """The progress of a study."""

    done: set[str]
    failed: dict[str, str] = field(default_factory=dict)
    """Name of a cell → reason of its failure."""
    left_out: set[str] = field(default_factory=set)
    """The names of the cells that need a failed cell."""


@dataclass(frozen=True)
class Plan:
    """A study, its cells, and the names of the finished cells."""

    study: Study
    cells: Mapping[str, Cell]
    out: Path
    done: frozenset[str]

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
        return cls(
            study,
            cells,
            out,
            frozenset(name for name, cell in cells.items() if _is_done(out, cell)),
        )

    def left(self) -> list[Cell]:
        """Returns the unfinished cells, seed by seed, so that an interrupted study has complete seeds."""
        left = [cell for name, cell in self.cells.items() if name not in self.done]
        return sorted(left, key=lambda cell: cell.seed)

    def seconds(self) -> dict[str, float | None]:
        """Returns step → seconds of a run: the mean of the finished runs, or the study's value if no run finished."""
        measured: dict[str, list[float]] = {step: [] for step in self.study.steps}
        for name in self.done:
            measured[self.cells[name].step].append(
                read_json(_record(self.out, self.cells[name]), Record).seconds
            )
        return {
            step: fmean(times) if times else self.study.steps[step].seconds
            for step, times in measured.items()
        }


def run_plan(
    plan: Plan, runner: Runner, folder: Path, tell: Callable[[str], None]
) -> StudyProgress:
    """Runs the unfinished cells. A failure stops only the cells that need the failed cell.

    Args:
        plan: The plan of the study.
        runner: The engine that runs the jobs.
        folder: The folder in which commands run.
        tell: A function that is called with a line of text for each cell that ended.

    Raises:
        FolderBusy: Another process runs a study in this folder.
    """
    with lease(plan.out):
        publish_json(plan.out / "study.json", Question(question=plan.study.question))
        return _run(plan, runner, folder, tell)


def _run(plan: Plan, runner: Runner, folder: Path, tell: Callable[[str], None]) -> StudyProgress:
    progress = StudyProgress(set(plan.done))
    waiting = plan.left()
    working: set[str] = set()
    while waiting or working:
        # A cell that needs a failed cell cannot run, directly or through other cells.
        for cell in _hopeless(waiting, progress):
            progress.left_out.add(cell.name)
            waiting.remove(cell)
        # Start as many cells as the engine has room for, the first seed first.
        free = max(0, runner.places - len(working))
        for cell in _ready(waiting, progress.done)[:free]:
            waiting.remove(cell)
            working.add(cell.name)
            step = plan.study.steps[cell.step]
            job = CellJob(
                cell.name,
                cell.command,
                cell.service,
                plan.out.absolute(),
                folder,
                step.cpus,
                step.gpus,
            )
            runner.start(job)
        if working:
            ended = runner.ended()
            working.remove(ended.name)
            _keep(plan, ended, progress)
            tell(_line(plan, ended, progress))
    return progress


def _hopeless(waiting: Sequence[Cell], progress: StudyProgress) -> list[Cell]:
    """Returns the cells that need a failed or skipped cell. In `waiting`, each cell comes after all cells it needs."""
    lost = set(progress.failed) | progress.left_out
    hopeless = []
    for cell in waiting:
        if lost.intersection(cell.needs):
            lost.add(cell.name)
            hopeless.append(cell)
    return hopeless


def _ready(waiting: Sequence[Cell], done: set[str]) -> list[Cell]:
    """Returns the cells whose needs are all finished, the latest steps first, so that complete results come early."""
    ready = [cell for cell in waiting if done.issuperset(cell.needs)]
    lowest = min((cell.seed for cell in ready), default=-1)
    first = [cell for cell in ready if cell.seed == lowest]
    return [*reversed(first), *(cell for cell in ready if cell.seed != lowest)]


def _keep(plan: Plan, ended: Ended, progress: StudyProgress) -> None:
    """Writes the record of a cell that succeeded."""
    cell = plan.cells[ended.name]
    if ended.failure is None and not exists(plan.out / cell.name):
        ended = replace(
            ended, failure=f"the command succeeded but wrote no {{out}} ({plan.out / cell.name})"
        )
    if ended.failure is not None:
        progress.failed[cell.name] = ended.failure
        return
    record = Record(
        digest=cell.digest, command=cell.command, seconds=ended.seconds, made=Provenance.now()
    )
    publish_json(_record(plan.out, cell), record)
    progress.done.add(cell.name)


def _line(plan: Plan, ended: Ended, progress: StudyProgress) -> str:
    count = f"{len(progress.done)} of {len(plan.cells)}"
    if ended.name in progress.failed:
        return f"{ended.name}: failed: {progress.failed[ended.name]}"
    return f"{ended.name}: finished in {ended.seconds:.0f} s ({count})"


def _record(out: Path, cell: Cell) -> Path:
    return out / f"{cell.name}.json"


def _is_done(out: Path, cell: Cell) -> bool:
    """Returns whether the output of a cell exists and was made by the same commands.

    Raises:
        DataError: The output was made by other commands.
    """
    path = _record(out, cell)
    if not exists(path) or not exists(out / cell.name):
        return False
    if read_json(path, Record).digest == cell.digest:
        return True
    raise DataError(
        f"{out / cell.name}: this output, or one of its inputs, was made with other settings than the study has now. "
        "Delete this output to make it again, or give another folder for the results"
    )


def _check_folder(study: Study, out: Path) -> None:
    path = out / "study.json"
    if not exists(path):
        return
    question = read_json(path, Question).question
    if question != study.question:
        raise SettingsError(
            f"{out}: holds the results of another study ({shown(question)}). Give another folder for the results"
        )
