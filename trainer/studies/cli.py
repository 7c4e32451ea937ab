"""The commands of `unijudge study`: run, report, summary and list."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from trainer.studies.cells import cells_of
from trainer.studies.engines import Engine, opened
from trainer.studies.plan import Plan
from trainer.studies.run import StudyProgress, run_plan
from trainer.studies.study import read_study
from unijudge.errors import SettingsError, TaskFailed
from unijudge.job import KeyValueOption
from unijudge.pages.terminal import aligned
from unijudge.shown import NAMED
from unijudge.storage.leases import check_free
from unijudge.storage.listing import foreign_files
from unijudge.storage.locations import locate
from unijudge.storage.stores import exists

app = typer.Typer(
    help="Run many trainings that answer one question, and report the results.",
    no_args_is_help=True,
)

FIRST_TABLE = "## What agrees with the paper"

File = Annotated[Path, typer.Argument(help="The study's TOML file.", parser=locate)]
Results = Annotated[Path, typer.Argument(help="The folder of the study's results.", parser=locate)]
Seeds = Annotated[
    int | None, typer.Option(min=1, help="Use only this many seeds, the first ones of the study.")
]


@app.command()
def run(
    file: File,
    out: Results,
    overrides: KeyValueOption = None,
    seeds: Seeds = None,
    engine: Annotated[
        Engine, typer.Option(help="ray: parallel, as Ray tasks. local: one step after another.")
    ] = "ray",
    address: Annotated[
        str,
        typer.Option(
            help="The address of a Ray cluster. Without an address, a local Ray is started."
        ),
    ] = "",
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Print the commands and the estimated time without running them."
        ),
    ] = False,
) -> None:
    """Run the unfinished steps of a study. The same command resumes the study and does not repeat finished steps.

    Commands run in the current folder. On a cluster, every machine must see the current folder and the folder of
    results.
    """
    plan = _plan(file, out, overrides, seeds)
    if dry_run:
        typer.echo("\n".join(_dry(plan)))
        return
    if not plan.left():
        typer.echo(
            f"{out}: all {len(plan.cells)} steps are finished. Next: unijudge study report {file} {out}"
        )
        return
    check_free(plan.out)  # before Ray starts
    with opened(engine, address) as runner:
        progress = run_plan(plan, runner, Path.cwd(), typer.echo)
    typer.echo(f"{out}: {len(progress.done)} of {len(plan.cells)} steps are finished")
    if progress.failed:
        raise _failure(progress)


@app.command()
def report(file: File, out: Results, overrides: KeyValueOption = None, seeds: Seeds = None) -> None:
    """Write table.md, report.html and finished.jsonl into the folder of results, and print the findings.

    finished.jsonl holds the numbers of all finished steps. Copy it into the folder of results on another machine, and
    `run` does not repeat these steps there.
    """
    from trainer.studies.report import write_study_report

    plan = _plan(file, out, overrides, seeds)
    for sentence in write_study_report(plan):
        typer.echo(sentence)
    typer.echo(f"Open {out / 'report.html'} in a browser. The table alone is in {out / 'table.md'}")


@app.command()
def summary(
    out: Annotated[
        Path, typer.Argument(help="The Markdown file to write. Text above its first table is kept.")
    ],
    folder: Annotated[
        Path, typer.Option("--studies", help="A folder of studies.", parser=locate)
    ] = Path("studies"),
    results: Annotated[
        Path, typer.Option(help="A folder with a folder of results for each study.", parser=locate)
    ] = Path("build/studies"),
) -> None:
    """Write the tables of all studies into one file, and list which findings agree with the paper."""
    from trainer.studies.report import summary as summed
    from unijudge.storage.files import publish_text, read_text

    plans = {file.stem: _plan(file, results / file.stem, None, None) for file in _studies(folder)}
    before = read_text(out).partition(FIRST_TABLE)[0] if exists(out) else ""
    publish_text(out, before + summed(plans))
    typer.echo(f"{out}: {len(plans)} studies")


@app.command("list")
def list_(
    folder: Annotated[Path, typer.Argument(help="A folder of studies.", parser=locate)] = Path(
        "studies"
    ),
    results: Annotated[
        Path | None,
        typer.Option(help="A folder with a folder of results for each study.", parser=locate),
    ] = None,
) -> None:
    """List the studies in a folder with their questions and sizes."""
    rows = []
    for file in _studies(folder):
        study = read_study(file, [])
        cells = cells_of(study)
        seeds = "1 seed" if len(study.seeds) == 1 else f"{len(study.seeds)} seeds"
        size = f"{len(cells)} steps, {seeds}"
        if results is not None:
            done = len(_plan(file, results / file.stem, None, None).done)
            size = f"{done} of {size}"
        rows.append([file.stem, size, study.question])
    typer.echo("\n".join(aligned(rows, left=3)))


def _studies(folder: Path) -> list[Path]:
    """Returns the files of the studies in a folder.

    Raises:
        SettingsError: The folder holds no study.
    """
    files = foreign_files(folder, "*.toml")
    if not files:
        raise SettingsError(f"{folder}: holds no study (*.toml). Give another folder")
    return files


def _plan(file: Path, out: Path, overrides: list[str] | None, seeds: int | None) -> Plan:
    study = read_study(file, overrides or [])
    if seeds is not None:
        study = study.model_copy(update={"seeds": study.seeds[:seeds]})
    return Plan.of(study, out)


def _dry(plan: Plan) -> Iterator[str]:
    """Yields the commands of the unfinished steps, and the sum of their times."""
    seconds = plan.seconds()
    left = plan.left()
    for cell in left:
        yield f"# {cell.name}"
        if cell.service:
            yield f"{cell.service} &"
        yield cell.command
    known = [seconds[cell.step] for cell in left]
    total = sum(time for time in known if time is not None)
    unknown = len({cell.step for cell in left if seconds[cell.step] is None})
    yield f"# {len(left)} of {len(plan.cells)} steps are left, which take {total / 3600:.2f} hours one after another"
    if unknown:
        yield f"# plus the unknown time of {unknown} kinds of steps that have not run yet and set no `seconds`"


def _failure(progress: StudyProgress) -> TaskFailed:
    """Returns the error that names the first failed cells with their reasons."""
    lines = [f"{name}: {reason}" for name, reason in progress.failed.items()]
    more = f" and {len(lines) - NAMED:,} more" if len(lines) > NAMED else ""
    skipped = ""
    if progress.left_out:
        skipped = f", and {len(progress.left_out)} steps that need them were skipped"
    return TaskFailed(
        f"{len(lines)} steps failed{skipped}. {'; '.join(lines[:NAMED])}{more}. Fix the cause, and run the same "
        "command again for the remaining steps"
    )
