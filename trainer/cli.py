"""The commands of `unijudge train`: pull, embed, embedder, reranker, report, export, evaluate, benchmark, rerank."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from trainer.benchmarks.settings import BenchmarkSettings
from trainer.embedding.settings import EmbedSettings
from trainer.evaluation.settings import EvaluateSettings, RerankSettings
from trainer.export.usage import Form
from trainer.training.settings import EmbedderSettings, RerankerSettings
from unijudge.cli import AsJson, Overwrite
from unijudge.job import ExampleOption, FileAndSettings, command_settings, in_order, job
from unijudge.pages.terminal import print_table
from unijudge.storage.leases import check_free
from unijudge.storage.locations import locate

logger = logging.getLogger(__name__)

USED = in_order(
    "embed", "embedder", "reranker", "report", "evaluate", "rerank", "benchmark", "export", "pull"
)

LINES = 10
"""The number of lines that show the progress of a job in a log."""
MEAN = "mean of the subsets"
LEGEND = (
    "low … high: the 95 % interval of precision@1. left out: items of the pool that are no candidates of a query. "
    "united: share of queries that count the positives of other rows with the same question. modality gap: distance "
    "between the mean vectors of contents with and without an image"
)
"""The meaning of the columns that an evaluation adds to the usual measures."""

app = typer.Typer(cls=USED, help="Embed, train and evaluate.", no_args_is_help=True)


@app.command()
def pull(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="URL", help="A folder or URL written by `mine publish`.", parser=locate
        ),
    ],
    out: Annotated[Path, typer.Argument(help="The folder to write.", parser=locate)],
) -> None:
    """Download a scored dataset and verify all its files. The same command resumes an interrupted download."""
    from unijudge.formats.datasets import pull as run

    made = run(source, out)
    typer.echo(
        f"{out}: {len(made.files)} files, all verified against the dataset. The corpus is {out / 'corpus'}"
    )


@app.command(cls=job(EmbedSettings))
def embed(words: FileAndSettings = None, example: ExampleOption = False) -> None:
    """Embed the items and queries of a corpus. The same command resumes an interrupted embedding, part by part.

    On several GPUs: torchrun --nproc-per-node 8 -m unijudge train embed ARGUMENTS. The number of GPUs does not change
    the files.
    """
    resolved = command_settings(EmbedSettings, words, example)
    _check_free(resolved.out)
    from trainer.embedding.embed import embed_corpus

    with _bar() as bar:
        made = embed_corpus(resolved, _counter(bar, "inputs embedded"))
    _tell_once(
        f"{resolved.out}: vectors of {made.items} items and {made.queries} queries, width {made.width}, by {made.model}"
    )


@app.command(cls=job(EmbedderSettings))
def embedder(words: FileAndSettings = None, example: ExampleOption = False) -> None:
    """Train an embedder's LoRA on the rows of `mine select`. The same command resumes from the last checkpoint.

    On several GPUs: torchrun --nproc-per-node 8 -m unijudge train embedder ARGUMENTS, or accelerate launch
    --config_file deploy/recipes/accelerate/ddp.yaml -m unijudge train embedder ARGUMENTS. The number of GPUs does not
    change an update.
    """
    resolved = command_settings(EmbedderSettings, words, example)
    _check_free(resolved.out)
    from trainer.training.embedder import train_embedder

    with _bar() as bar:
        adapter = train_embedder(resolved, _reporter(bar, resolved.max_steps))
    _tell_once(f"The trained adapter is {adapter}. Use the adapter with model.adapter={adapter}")


@app.command(cls=job(RerankerSettings))
def reranker(words: FileAndSettings = None, example: ExampleOption = False) -> None:
    """Train a judge as a reranker on the rows of `mine select`, and merge the adapter into the model.

    The same command resumes from the last checkpoint. Several GPUs work as for `embedder`.
    """
    resolved = command_settings(RerankerSettings, words, example)
    _check_free(resolved.out)
    from trainer.training.reranker import train_reranker

    with _bar() as bar:
        merged = train_reranker(resolved, _reporter(bar, resolved.max_steps))
    _tell_once(
        f"The reranker is {merged}. Serve the reranker with `judge serve model.name={merged}`"
    )


@app.command()
def report(
    runs: Annotated[
        list[Path], typer.Argument(help="Folders of trainings, finished or not.", parser=locate)
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="The page. Default: report.html in the run, or for several runs in the current folder.",
            parser=locate,
        ),
    ] = None,
) -> None:
    """Draw the curves of a training, or compare the curves and settings of several trainings."""
    from trainer.training.report import write_report

    page = out or (runs[0] / "report.html" if len(runs) == 1 else Path("report.html"))
    write_report(runs, page)
    typer.echo(
        f"{page}: the report of {len(runs)} run{'s' if len(runs) > 1 else ''}. Open this file in a browser"
    )


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="The folder of a finished training.", parser=locate)],
    out: Annotated[Path, typer.Argument(help="The folder or URL to write.", parser=locate)],
    form: Annotated[
        Form, typer.Option(help="merged: complete weights. adapter: the adapter alone.")
    ] = "merged",
    evaluation: Annotated[
        list[Path] | None,
        typer.Option(help="A folder of an evaluation to show on the card.", parser=locate),
    ] = None,
    license: Annotated[  # noqa: A002
        str | None, typer.Option(help="The licence for the card, such as apache-2.0.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Export a run with a model card, as a folder for transformers, PEFT, sentence-transformers, vLLM and mteb."""
    _check_free(out)
    from trainer.export.export import export as run_export

    made = run_export(run, out, form, evaluation or (), license=license, overwrite=overwrite)
    typer.echo(
        f"{out}: the {made.kind}, in the form `{made.form}`. README.md shows how each library loads this folder"
    )


@app.command(cls=job(EvaluateSettings))
def evaluate(
    words: FileAndSettings = None,
    example: ExampleOption = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Rank candidates by similarity, and measure precision@1, recall@k, MRR and nDCG of each subset."""
    resolved = command_settings(EvaluateSettings, words, example)
    from trainer.evaluation.evaluate import evaluate as run
    from trainer.evaluation.power import CHANGED, Power

    report = run(resolved, overwrite=overwrite)
    if as_json:
        typer.echo(report.model_dump_json())
        return
    subsets = report.subsets
    _tell(subsets)
    typer.echo(LEGEND)
    if power := Power.of(subsets):
        typer.echo(
            f"With {power.queries:,} queries, the smallest detectable difference of mean precision@1 is "
            f"{power.smallest:.3f} (95 %, paired by query, if {CHANGED:.0%} of the results differ)"
        )


@app.command(cls=job(BenchmarkSettings))
def benchmark(
    words: FileAndSettings = None,
    example: ExampleOption = False,
    listed: Annotated[
        bool, typer.Option("--list", help="List the found and the missing data, and stop.")
    ] = False,
) -> None:
    """Measure a system on MMEB, Flickr30K, COCO, ShareGPT4V, Urban1K and SugarCrepe, with data from a disk.

    The same command resumes an interrupted benchmark, set by set.
    """
    resolved = command_settings(BenchmarkSettings, words, example)
    if listed:
        from trainer.benchmarks.registry import listing

        typer.echo("\n".join(listing(resolved.root)))
        return
    _check_free(resolved.out)
    from trainer.benchmarks.run import benchmark as run

    with _bar() as bar:
        count = _counter(bar, "sets measured")
        table = run(resolved, lambda name, done, total: count(done, total, name))
    if table is not None:
        typer.echo(table.text())


@app.command(cls=job(RerankSettings))
def rerank(
    words: FileAndSettings = None, example: ExampleOption = False, overwrite: Overwrite = False
) -> None:
    """Rerank the best items of an evaluation with a judge service, and measure gains and losses of each subset."""
    resolved = command_settings(RerankSettings, words, example)
    from trainer.reranking.rerank import rerank as run

    with _bar() as bar:
        report = run(resolved, _counter(bar, "queries reranked"), overwrite=overwrite)
    _tell(report.subsets)
    typer.echo(
        f"Method {report.method}, judge {report.judge}: {report.unjudged} pairs have no verdict, {report.unparsable} "
        "lists have no choice"
    )
    for subset, decision in (report.auto or {}).items():
        typer.echo(f"{subset}: {decision}")


def _is_first() -> bool:
    """Returns whether this process is the only process or the first of several processes, which prints the messages."""
    # A cluster may also give a rank to a job with a single process.
    return os.environ.get("WORLD_SIZE", "1") in ("", "1") or os.environ.get("RANK", "0") == "0"


def _check_free(out: Path) -> None:
    """Refuses an output that another job writes, before torch is loaded, which takes seconds.

    Only the first of several processes looks, since the others would find the lease of the first process.
    """
    if _is_first():
        check_free(out)


def _tell_once(text: str) -> None:
    if _is_first():
        typer.echo(text)


def _tell(subsets: dict[str, dict[str, float]]) -> None:
    """Prints the measures of every subset, and of several subsets the mean of each measure that all of them have."""
    names = list(dict.fromkeys(name for values in subsets.values() for name in values))
    shown = dict(subsets)
    if len(subsets) > 1:
        shown[MEAN] = _mean(list(subsets.values()))
    rows = []
    for subset, values in shown.items():
        cells = (
            f"{values[name]:.3f}".removesuffix(".000") if name in values else "–" for name in names
        )
        rows.append([subset, *cells])
    print_table(["subset", *names], rows)


def _mean(subsets: list[dict[str, float]]) -> dict[str, float]:
    """Returns the sum of the queries, and the plain mean of each other measure except the ends of the interval."""
    mean = {"queries": sum(values["queries"] for values in subsets)}
    for name in subsets[0]:
        if name not in ("queries", "low", "high") and all(name in values for values in subsets):
            mean[name] = sum(values[name] for values in subsets) / len(subsets)
    return mean


def _counter(bar: Progress, what: str) -> Callable[..., None]:
    """Returns a function of (finished, all, note): it moves a bar on a terminal, and elsewhere logs ten lines."""
    task = bar.add_task(what, total=None, note="")
    told = 0

    def report(done: int, total: int, note: str = "") -> None:
        nonlocal told
        bar.update(task, completed=done, total=total, note=note)
        tenth = LINES * done // max(total, 1)
        if not bar.console.is_terminal and tenth > told:
            logger.info("%d of %d %s", done, total, what)
        told = tenth

    return report


def _reporter(bar: Progress, steps: int) -> Callable[[int, float], None]:
    """Returns a reporter that updates a progress bar on a terminal, and elsewhere logs about ten lines."""
    task = bar.add_task("train", total=steps, note="")
    steps_between = max(1, steps // 10)

    def report(step: int, loss: float) -> None:
        bar.update(task, completed=step, note=f"loss {loss:.4f}")
        is_due = step == 1 or step % steps_between == 0
        if is_due and not bar.console.is_terminal:
            logger.info("step %d of %d, loss %.4f", step, steps, loss)

    return report


def _bar() -> Progress:
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(), transient=True, disable=not _is_first(),
    )  # fmt: skip
    # Without a terminal the bar would print an empty line.
    bar.disable = bar.disable or not bar.console.is_terminal
    return bar
