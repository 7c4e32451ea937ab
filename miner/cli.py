"""`unijudge mine`: import, score, select, sweep, calibrate."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from miner.settings import CalibrateSettings, ScoreSettings, SelectSettings, SweepSettings
from unijudge.cli import Example, Overrides, SettingsFile, command_settings
from unijudge.corpus import CorpusManifest

if TYPE_CHECKING:
    from miner.score import Progress as ScoreProgress

logger = logging.getLogger(__name__)

app = typer.Typer(help="Retrieve, have judged, select hard negatives.", no_args_is_help=True)
imports = typer.Typer(help="Foreign layouts into a corpus folder.", no_args_is_help=True)
app.add_typer(imports, name="import")

Out = Annotated[Path, typer.Argument(help="The corpus folder to write.")]
Images = Annotated[Path, typer.Option(help="The root of the image paths.")]
MaxRejects = Annotated[float, typer.Option(help="Share of rejected rows above which nothing is imported.")]


@imports.command("pairs")
def import_pairs(
    file: Annotated[Path, typer.Argument(help="A .parquet, .jsonl or .csv file of pairs.")],
    out: Out,
    images: Images = Path(),
    subset: Annotated[str | None, typer.Option(help="Name of rows without one; default: the file's name.")] = None,
    max_rejects: MaxRejects = 0.01,
) -> None:
    """Columns: query_text, query_image, positive_text, positive_image; optional: subset, query_id."""
    from miner.importers.build import build
    from miner.importers.pairs import read_pairs

    rows = read_pairs(file, subset)
    _tell(out, build(rows, images=images, out=out, source=str(file), max_rejects=max_rejects))


@imports.command("mmeb")
def import_mmeb(
    root: Annotated[Path, typer.Argument(help="A folder with a folder of Parquet files for each subset.")],
    out: Out,
    images: Annotated[Path | None, typer.Option(help="The root of the image paths; default: ROOT.")] = None,
    split: Annotated[str, typer.Option(help="Files named SPLIT-*.parquet are read.")] = "original",
    cap_per_subset: Annotated[
        int | None, typer.Option(min=1, help="First rows of each subset; 50000 in UniME-V2.")
    ] = None,
    subset: Annotated[list[str] | None, typer.Option(help="Only this one; may be given several times.")] = None,
    max_rejects: MaxRejects = 0.01,
) -> None:
    """The published MMEB-train layout: qry, qry_image_path, pos_text, pos_image_path."""
    from miner.importers.build import build
    from miner.importers.mmeb import read_mmeb

    rows = read_mmeb(root, split=split, cap_per_subset=cap_per_subset, subsets=subset or ())
    _tell(out, build(rows, images=images or root, out=out, source=f"{root} ({split})", max_rejects=max_rejects))


@app.command()
def score(settings: SettingsFile = None, overrides: Overrides = None, example: Example = False) -> None:
    """Stream each query and its nearest candidates to the judge, and write score shards. Resumes by itself."""
    resolved = command_settings(ScoreSettings, settings, overrides, example)
    from miner.score import score as run

    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )  # fmt: skip
    with bar:
        done = run(resolved, _reporter(bar))
    typer.echo(
        f"{resolved.out}: {done.shards} shards; this run judged {done.pairs} pairs, {done.errors} of them without a "
        f"verdict, {done.pairs_per_second:.1f} pairs/s"
    )


@app.command()
def select(
    settings: SettingsFile = None,
    overrides: Overrides = None,
    example: Example = False,
    scores: Annotated[list[str] | None, typer.Option(help="Instead of --set scores=…; twice: a cascade.")] = None,
    overrides_file: Annotated[str | None, typer.Option("--overrides", help="Instead of --set overrides=….")] = None,
) -> None:
    """Choose hard negatives from score shards. Free: nothing is judged again."""
    given = [f"scores={json.dumps(scores)}"] if scores else []
    given += [f"overrides={json.dumps(overrides_file)}"] if overrides_file else []
    resolved = command_settings(SelectSettings, settings, [*(overrides or []), *given], example)
    from miner.selection import select as run

    for name, value in run(resolved).items():
        typer.echo(f"{name:<42} {value:>12,}")


@app.command()
def sweep(settings: SettingsFile = None, overrides: Overrides = None, example: Example = False) -> None:
    """Count many selections side by side, and recommend a β. Writes no rows."""
    resolved = command_settings(SweepSettings, settings, overrides, example)
    from miner.points import side_by_side
    from miner.sweep import sweep as run

    done = run(resolved)
    _show(side_by_side(done.points), done.recommended)
    typer.echo(done.reason)


@app.command()
def calibrate(settings: SettingsFile = None, overrides: Overrides = None, example: Example = False) -> None:
    """Fit a judge's scores to labelled pairs, so that a score is a chance."""
    resolved = command_settings(CalibrateSettings, settings, overrides, example)
    from miner.calibrate import calibrate as run

    done = run(resolved)
    typer.echo(
        f"{resolved.out}: slope {done.slope:.4f}, intercept {done.intercept:.4f}, of {done.matches} matches and "
        f"{done.negatives} others ({done.without_verdict} more without a verdict)"
    )
    for name in ("log_loss", "calibration_error"):
        before, after = getattr(done.before, name), getattr(done.after, name)
        typer.echo(
            f"{name.replace('_', ' '):<18} {before:.4f} as it was, {after:.4f} after, in {done.folds} held-out parts"
        )


def _show(rows: list[list[str]], marked: int | None) -> None:
    """A table on a terminal; elsewhere aligned text."""
    console = Console()
    head, *body = rows
    if console.is_terminal:
        table = Table(*head)
        for place, row in enumerate(body):
            table.add_row(*row, style="bold" if place == marked else None)
        console.print(table)
        return
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        typer.echo("  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)))


def _tell(out: Path, made: CorpusManifest) -> None:
    typer.echo(f"{out}: {made.queries} queries, {made.items} items, {made.rejects} rows rejected (rejects.jsonl)")


def _reporter(bar: Progress) -> Callable[["ScoreProgress"], None]:
    """A bar on a terminal; elsewhere one line for each shard."""
    task = bar.add_task("shards", total=None, rate="")

    def report(progress: "ScoreProgress") -> None:
        rate = f"{progress.pairs_per_second:.1f} pairs/s"
        bar.update(task, total=progress.shards, completed=progress.shards_done, rate=rate)
        if not bar.console.is_terminal:
            left = "" if progress.seconds_left is None else f", {progress.seconds_left:.0f} s left"
            logger.info("shard %d of %d, %s%s", progress.shards_done, progress.shards, rate, left)

    return report
