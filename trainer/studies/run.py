"""Runs the unfinished steps of a study in parallel. A step starts when all outputs that it needs exist.

Next to each output is a record (`NAME.json`) with the digest of the commands that made the output. A step does not run
again if its record has the same digest. A step that finished on another machine (finished.jsonl) runs only if an
unfinished step needs its output.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from trainer.studies.cells import Cell
from trainer.studies.engines import Runner
from trainer.studies.plan import Plan, Question, Record, record_path
from trainer.studies.process import CellJob, Ended
from unijudge.provenance import Provenance
from unijudge.storage.files import publish_json
from unijudge.storage.leases import lease
from unijudge.storage.stores import exists


@dataclass
class StudyProgress:
    """The progress of a study."""

    done: set[str]
    failed: dict[str, str] = field(default_factory=dict)
    """Name of a cell → reason of its failure."""
    left_out: set[str] = field(default_factory=set)
    """The names of the cells that need a failed cell."""


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
    publish_json(record_path(plan.out, cell), record)
    progress.done.add(cell.name)


def _line(plan: Plan, ended: Ended, progress: StudyProgress) -> str:
    count = f"{len(progress.done)} of {len(plan.cells)}"
    if ended.name in progress.failed:
        return f"{ended.name}: failed: {progress.failed[ended.name]}"
    return f"{ended.name}: finished in {ended.seconds:.0f} s ({count})"
