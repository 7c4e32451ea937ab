"""`unijudge study`: run, report, list."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from trainer.studies.cells import cells_of
from trainer.studies.engines import Engine, opened
from trainer.studies.run import Plan, StudyProgress, run_plan
from trainer.studies.study import read_study
from unijudge.errors import SettingsError, TaskFailed
from unijudge.job import KeyValueOption
from unijudge.pages.terminal import aligned
from unijudge.shown import NAMED
from unijudge.storage.listing import foreign_files
from unijudge.storage.locations import locate
from unijudge.storage.stores import exists

app = typer.Typer(help="Run many trainings that answer one question, and report what they say.", no_args_is_help=True)

FIRST_TABLE = "## What agrees with the paper"

File = Annotated[Path, typer.Argument(help="The study's TOML file.", parser=locate)]
Results = Annotated[Path, typer.Argument(help="The folder of its results.", parser=locate)]
Seeds = Annotated[int | None, typer.Option(min=1, help="Only the first so many seeds of the study.")]


@app.command()
def run(
    file: File,
    out: Results,
    overrides: KeyValueOption = None,
    seeds: Seeds = None,
    engine: Annotated[Engine, typer.Option(help="Side by side as Ray tasks, or one after another.")] = "ray",
    address: Annotated[str, typer.Option(help="Of a Ray cluster. Without it: a local Ray, for this study.")] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the commands and the time they take, and stop.")
    ] = False,
) -> None:
    """Run what is left of a study. The same command resumes it; a step that is done is not run again.

    Commands run in the current folder. On a cluster, every machine must see it and the folder of results.
    """
    plan = _plan(file, out, overrides, seeds)
    if dry_run:
        typer.echo("\n".join(_dry(plan)))
        return
    if not plan.left():
        typer.echo(f"{out}: all {len(plan.cells)} steps are done. Next: unijudge study report {file} {out}")
        return
    with opened(engine, address) as runner:
        progress = run_plan(plan, runner, Path.cwd(), typer.echo)
    typer.echo(f"{out}: {len(progress.done)} of {len(plan.cells)} steps are done")
    if progress.failed:
        raise _failure(progress)


@app.command()
def report(file: File, out: Results, overrides: KeyValueOption = None, seeds: Seeds = None) -> None:
    """Write table.md and report.html into the folder of results, and print what the numbers say."""
    from trainer.studies.report import write_study_report

    plan = _plan(file, out, overrides, seeds)
    for sentence in write_study_report(plan):
        typer.echo(sentence)
    typer.echo(f"{out / 'report.html'}: written; open it in a browser. The table alone: {out / 'table.md'}")


@app.command()
def summary(
    out: Annotated[Path, typer.Argument(help="The Markdown file to write; text above its first table stays.")],
    folder: Annotated[Path, typer.Option("--studies", help="A folder of studies.", parser=locate)] = Path("studies"),
    results: Annotated[
        Path, typer.Option(help="A folder with a folder of results for each study.", parser=locate)
    ] = Path("build/studies"),
) -> None:
    """Write the tables of all studies into one file, with what agrees with the paper."""
    from trainer.studies.report import summary as summed
    from unijudge.storage.files import publish_text, read_text

    plans = {file.stem: _plan(file, results / file.stem, None, None) for file in _studies(folder)}
    before = read_text(out).partition(FIRST_TABLE)[0] if exists(out) else ""
    publish_text(out, before + summed(plans))
    typer.echo(f"{out}: {len(plans)} studies")


@app.command("list")
def list_(
    folder: Annotated[Path, typer.Argument(help="A folder of studies.", parser=locate)] = Path("studies"),
    results: Annotated[
        Path | None, typer.Option(help="A folder with a folder of results for each study.", parser=locate)
    ] = None,
) -> None:
    """Name the studies in a folder, each with its question and its size."""
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
    """The files of a folder of studies.

    Raises:
        SettingsError: There is none.
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
    """The commands that are left, and what their times add up to."""
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
    yield f"# {len(left)} of {len(plan.cells)} steps are left: {total / 3600:.2f} hours, one after another"
    if unknown:
        yield f"# and {unknown} kinds of step whose time is not known yet: none has run, and `seconds` is not set"


def _failure(progress: StudyProgress) -> TaskFailed:
    """Names the cells that failed, the first ones with their reasons."""
    lines = [f"{name}: {reason}" for name, reason in progress.failed.items()]
    more = f" and {len(lines) - NAMED:,} more" if len(lines) > NAMED else ""
    lost = f"; {len(progress.left_out)} steps that need them were left out" if progress.left_out else ""
    return TaskFailed(
        f"{len(lines)} steps failed{lost}. {'; '.join(lines[:NAMED])}{more}. Mend the cause; the same command runs the "
        "rest"
    )
