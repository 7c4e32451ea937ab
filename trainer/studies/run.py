"""Runs what is left of a study: steps side by side, each when all that it needs is there.

Beside each output lies a record (`NAME.json`) with the digest of the commands that made it. A step is not run again if
its record has the same digest.
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
    """study.json: whose results lie in a folder."""

    model_config = ConfigDict(title="study's name")

    question: str


class Record(BaseModel):
    """NAME.json beside an output: how it was made."""

    model_config = ConfigDict(title="record of a study's step")

    digest: str
    command: str
    seconds: float
    made: Provenance


@dataclass
class StudyProgress:
    """How far a study is."""

    done: set[str]
    failed: dict[str, str] = field(default_factory=dict)
    """Name of a cell → why it failed."""
    left_out: set[str] = field(default_factory=set)
    """Cells that need one that failed."""


@dataclass(frozen=True)
class Plan:
    """A study, its cells, and what is there already."""

    study: Study
    cells: Mapping[str, Cell]
    out: Path
    done: frozenset[str]

    @classmethod
    def of(cls, study: Study, out: Path) -> "Plan":
        """Checks everything that can be checked before anything runs.

        Raises:
            SettingsError: The study cannot be run: the step and the reason are named.
            DataError: The folder holds results of another study, or of other settings.
        """
        if not is_local(out):
            raise SettingsError(
                f"{out}: the results of a study lie on a disk, since its commands write logs. Give a path"
            )
        cells = cells_of(study)
        check_commands(cells.values())
        _check_folder(study, out)
        return cls(study, cells, out, frozenset(name for name, cell in cells.items() if _is_done(out, cell)))

    def left(self) -> list[Cell]:
        """What has to be run: seed by seed, so that a study that is stopped has whole seeds."""
        left = [cell for name, cell in self.cells.items() if name not in self.done]
        return sorted(left, key=lambda cell: cell.seed)

    def seconds(self) -> dict[str, float | None]:
        """Step → how long a run of it takes: the mean of the runs that are there, else what the study says."""
        measured: dict[str, list[float]] = {step: [] for step in self.study.steps}
        for name in self.done:
            measured[self.cells[name].step].append(read_json(_record(self.out, self.cells[name]), Record).seconds)
        return {step: fmean(times) if times else self.study.steps[step].seconds for step, times in measured.items()}


def run_plan(plan: Plan, runner: Runner, folder: Path, tell: Callable[[str], None]) -> StudyProgress:
    """Runs what is left. A failure stops only what needs the failed cell.

    Args:
        plan: What to run.
        runner: Where.
        folder: Where commands run.
        tell: Takes one line for each cell that ended.

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
        # A cell that needs a failed one cannot run, and neither can what needs that cell.
        for cell in _hopeless(waiting, progress):
            progress.left_out.add(cell.name)
            waiting.remove(cell)
        # As many as there is room for begin; those of the first seed come first.
        free = max(0, runner.places - len(working))
        for cell in _ready(waiting, progress.done)[:free]:
            waiting.remove(cell)
            working.add(cell.name)
            step = plan.study.steps[cell.step]
            job = CellJob(cell.name, cell.command, cell.service, plan.out.absolute(), folder, step.cpus, step.gpus)
            runner.start(job)
        if working:
            ended = runner.ended()
            working.remove(ended.name)
            _keep(plan, ended, progress)
            tell(_line(plan, ended, progress))
    return progress


def _hopeless(waiting: Sequence[Cell], progress: StudyProgress) -> list[Cell]:
    """Cells that need one that failed, or one that was left out; `waiting` has each cell after all that it needs."""
    lost = set(progress.failed) | progress.left_out
    found = []
    for cell in waiting:
        if lost.intersection(cell.needs):
            lost.add(cell.name)
            found.append(cell)
    return found


def _ready(waiting: Sequence[Cell], done: set[str]) -> list[Cell]:
    """Cells whose needs are all there; the latest steps first, so that whole results come early."""
    ready = [cell for cell in waiting if done.issuperset(cell.needs)]
    lowest = min((cell.seed for cell in ready), default=-1)
    first = [cell for cell in ready if cell.seed == lowest]
    return [*reversed(first), *(cell for cell in ready if cell.seed != lowest)]


def _keep(plan: Plan, ended: Ended, progress: StudyProgress) -> None:
    """Writes the record of a cell that succeeded."""
    cell = plan.cells[ended.name]
    if ended.failure is None and not exists(plan.out / cell.name):
        ended = replace(ended, failure=f"it ended well but wrote no {{out}} ({plan.out / cell.name})")
    if ended.failure is not None:
        progress.failed[cell.name] = ended.failure
        return
    record = Record(digest=cell.digest, command=cell.command, seconds=ended.seconds, made=Provenance.now())
    publish_json(_record(plan.out, cell), record)
    progress.done.add(cell.name)


def _line(plan: Plan, ended: Ended, progress: StudyProgress) -> str:
    count = f"{len(progress.done)} of {len(plan.cells)}"
    if ended.name in progress.failed:
        return f"{ended.name}: failed: {progress.failed[ended.name]}"
    return f"{ended.name}: done in {ended.seconds:.0f} s ({count})"


def _record(out: Path, cell: Cell) -> Path:
    return out / f"{cell.name}.json"


def _is_done(out: Path, cell: Cell) -> bool:
    """Whether its output is there, made by the same commands.

    Raises:
        DataError: It was made by other commands.
    """
    path = _record(out, cell)
    if not exists(path) or not exists(out / cell.name):
        return False
    if read_json(path, Record).digest == cell.digest:
        return True
    raise DataError(
        f"{out / cell.name}: was made by other settings than the study has now, or from such an input. Delete it to "
        "make it again, or give another folder for the results"
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
