"""The commands of `unijudge mine`: import, estimate, score, select, sweep, calibrate, inspect, export and publish.

The commands for scoring jobs on a cluster are in `miner/scoring/cli.py`.
"""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from miner.calibration.settings import CalibrateSettings
from miner.exporters.cli import exports
from miner.importers.cli import imports
from miner.inspection.settings import InspectSettings
from miner.scoring import cli as jobs_cli
from miner.selection.settings import SelectSettings
from miner.settings import ScoreSettings
from miner.sweep.settings import SweepSettings
from unijudge.cli import INTERRUPTED, AsJson, Overwrite
from unijudge.errors import SettingsError
from unijudge.job import (
    ExampleOption,
    FileAndSettings,
    command_settings,
    file_and_settings,
    in_order,
    job,
)
from unijudge.pages.terminal import aligned, print_table
from unijudge.storage.locations import locate
from unijudge.storage.stores import is_folder

if TYPE_CHECKING:
    from miner.scoring.job import ScoreProgress

logger = logging.getLogger(__name__)

USED = in_order(
    "import", "estimate", "score", "sweep", "calibrate", "select", "inspect", "export", "publish"
)

app = typer.Typer(
    cls=USED,
    help="Retrieve candidates, score them with the judge, select hard negatives.",
    no_args_is_help=True,
)
app.add_typer(imports, name="import")
jobs_cli.add_to(app)
app.add_typer(exports, name="export")


@app.command(cls=job(ScoreSettings))
def score(words: FileAndSettings = None, example: ExampleOption = False) -> None:
    """Send each query and its nearest candidates to the judge, and write score shards. Run it again to resume."""
    resolved = command_settings(ScoreSettings, words, example)
    from miner.retrieval.retrievers import check_installed
    from miner.scoring.job import score as run
    from miner.scoring.totals import totals_rows

    check_installed(resolved.index)
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(), transient=True,
    )  # fmt: skip
    # Without a terminal the bar would print an empty line.
    bar.disable = not bar.console.is_terminal
    with bar:
        done = run(resolved, _reporter(bar))
    counts = done.counts
    typer.echo(
        f"{resolved.out}: {done.shards_done} of {done.shards} shards. This run wrote {counts.pairs} pairs, asked the "
        f"judge about {counts.asked} and got no verdict for {counts.errors}, at {done.pairs_per_second:.1f} pairs/s"
    )
    if done.totals is not None:
        typer.echo("\n".join(aligned(totals_rows(done.totals), left=2)))
    if counts.errors:
        typer.echo(
            f"{counts.errors} pairs have no verdict. To retry only these pairs, run the same command with out=NEW "
            f"reuse={resolved.out}"
        )
    if done.shards_done < done.shards:
        raise typer.Exit(INTERRUPTED)


@app.command(cls=job(ScoreSettings))
def estimate(
    words: FileAndSettings = None,
    replicas: Annotated[
        list[int] | None, typer.Option(min=1, help="Also print the time with this many replicas.")
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(min=0, help="Replica-hours. Prints the largest k that fits in them."),
    ] = None,
    probe: Annotated[
        int,
        typer.Option(
            min=1,
            help="Approximate number of pairs to score to measure the rate. Raise it if it does not keep all "
            "replicas busy.",
        ),
    ] = 200,
    example: ExampleOption = False,
    as_json: AsJson = False,
) -> None:
    """Estimate the pairs, tokens and hours of a scoring job from the settings of `score`. Keeps the candidates."""
    resolved = command_settings(ScoreSettings, words, example)
    from miner.estimate.estimate import estimate_cost
    from miner.retrieval.retrievers import check_installed
    from miner.stopping import Stopped

    check_installed(resolved.index)
    try:
        made = estimate_cost(resolved, probe, lambda text: logger.info("%s", text))
    except Stopped:
        raise typer.Exit(INTERRUPTED) from None
    if as_json:
        typer.echo(json.dumps(made.record(replicas or (), budget)))
    else:
        typer.echo("\n".join(made.lines(replicas or (), budget)))


@app.command(cls=job(SelectSettings))
def select(
    words: FileAndSettings = None,
    example: ExampleOption = False,
    overwrite: Overwrite = False,
) -> None:
    """Choose hard negatives from score shards. Needs no judge."""
    file, _ = file_and_settings(words or [])
    if file is not None and is_folder(file):
        raise SettingsError(
            f"{file}: is a folder, not a file of settings. Give a folder of scores as scores={file}, or two folders "
            "as scores=[SMALL,LARGE]"
        )
    resolved = command_settings(SelectSettings, words, example)
    from miner.selection.select import select as run

    counted = run(resolved, overwrite=overwrite)
    typer.echo("\n".join(aligned((name, f"{value:,}") for name, value in counted.items())))


@app.command(cls=job(InspectSettings))
def inspect(words: FileAndSettings = None, example: ExampleOption = False) -> None:
    """Write an HTML page on which a person sees what a selection keeps and drops, and corrects the judge."""
    resolved = command_settings(InspectSettings, words, example)
    from miner.inspection.page import inspect as run

    typer.echo(run(resolved))


@app.command()
def publish(
    out: Annotated[Path, typer.Argument(help="The folder or URL of the dataset.", parser=locate)],
    corpus: Annotated[Path, typer.Option(help="The corpus folder.", parser=locate)],
    scores: Annotated[
        Path | None, typer.Option(help="The folder of judge scores.", parser=locate)
    ] = None,
    triples: Annotated[
        Path | None,
        typer.Option(help="The folder of training rows that `mine select` wrote.", parser=locate),
    ] = None,
    images: Annotated[bool, typer.Option(help="Copy the images too.")] = True,
    license: Annotated[  # noqa: A002
        str | None, typer.Option(help="The license on the dataset card, such as cc-by-4.0.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write a dataset with a card from a corpus, scores and training rows. `train pull` downloads it."""
    from miner.publishing.publish import publish as run

    made = run(out, corpus, scores, triples, images=images, license=license, overwrite=overwrite)
    typer.echo(
        f"{out}: {len(made.files)} files, {sum(file.size for file in made.files.values()):,} bytes"
    )


@app.command(cls=job(SweepSettings))
def sweep(words: FileAndSettings = None, example: ExampleOption = False) -> None:
    """Compare many selections side by side and recommend a β. Writes no training rows."""
    resolved = command_settings(SweepSettings, words, example)
    from miner.sweep.recommend import MEANINGS, comparison_table
    from miner.sweep.sweep import sweep as run

    done = run(resolved)
    head, *rows = comparison_table(done.points)
    print_table(head, rows, marked=done.recommended)
    typer.echo(
        "\n".join(f"{name}: {meaning}" for name, meaning in MEANINGS.items() if name in head)
    )
    typer.echo(done.reason)


@app.command(cls=job(CalibrateSettings))
def calibrate(words: FileAndSettings = None, example: ExampleOption = False) -> None:
    """Fit a judge's scores to labelled pairs, so that a score is a probability."""
    resolved = command_settings(CalibrateSettings, words, example)
    from miner.calibration.calibrate import calibrate as run

    done = run(resolved)
    typer.echo(
        f"{resolved.out}: slope {done.slope:.4f}, intercept {done.intercept:.4f}, fitted to {done.matches} matches "
        f"and {done.negatives} negatives ({done.without_verdict} pairs without a verdict were left out)"
    )
    rows = []
    for name in ("log_loss", "calibration_error"):
        before = getattr(done.before, name)
        after = getattr(done.after, name)
        rows.append([name.replace("_", " "), f"{before:.4f}", f"{after:.4f}"])
    print_table([f"in {done.folds} held-out parts", "before", "after"], rows)


def _reporter(bar: Progress) -> Callable[["ScoreProgress"], None]:
    """Reports progress with a bar on a terminal, and with one log line for each shard elsewhere."""
    task = bar.add_task("shards", total=None, rate="")

    def report(progress: "ScoreProgress") -> None:
        rate = f"{progress.pairs_per_second:.1f} pairs/s"
        bar.update(task, total=progress.shards, completed=progress.shards_done, rate=rate)
        if not bar.console.is_terminal:
            left = "" if progress.seconds_left is None else f", {progress.seconds_left:.0f} s left"
            logger.info("shard %d of %d, %s%s", progress.shards_done, progress.shards, rate, left)

    return report
