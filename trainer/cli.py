"""`unijudge train`: embed, embedder, evaluate."""

import logging

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from trainer.settings import EmbedSettings, EvaluateSettings, TrainSettings
from unijudge.cli import Example, Overrides, SettingsFile, command_settings

logger = logging.getLogger(__name__)

app = typer.Typer(help="Embed, train, evaluate.", no_args_is_help=True)


@app.command()
def embed(settings: SettingsFile = None, overrides: Overrides = None, example: Example = False) -> None:
    """Embed a corpus' items and queries. Resumes by itself, part by part."""
    resolved = command_settings(EmbedSettings, settings, overrides, example)
    from trainer.embed import embed_corpus

    with _bar() as bar:
        task = bar.add_task("embed", total=None, note="")
        made = embed_corpus(resolved, lambda done, total: bar.update(task, completed=done, total=total))
    typer.echo(f"{resolved.out}: {made.items} items and {made.queries} queries, width {made.width}, by {made.model}")


@app.command()
def embedder(settings: SettingsFile = None, overrides: Overrides = None, example: Example = False) -> None:
    """Train a LoRA on the rows of `mine select`. Resumes from its last checkpoint."""
    resolved = command_settings(TrainSettings, settings, overrides, example)
    from trainer.train_embedder import train_embedder

    with _bar() as bar:
        task = bar.add_task("train", total=resolved.steps, note="")

        def report(step: int, loss: float) -> None:
            bar.update(task, completed=step, note=f"loss {loss:.4f}")
            if not bar.console.is_terminal and (step % max(1, resolved.steps // 10) == 0 or step == 1):
                logger.info("step %d of %d, loss %.4f", step, resolved.steps, loss)

        adapter = train_embedder(resolved, report)
    typer.echo(f"{adapter}: the trained adapter; use it with --set model.adapter={adapter}")


@app.command()
def evaluate(settings: SettingsFile = None, overrides: Overrides = None, example: Example = False) -> None:
    """Rank candidates by similarity; precision@1, recall@k, MRR and nDCG for each subset."""
    resolved = command_settings(EvaluateSettings, settings, overrides, example)
    from trainer.evaluate import evaluate as run

    report = run(resolved)
    names = list(next(iter(report.subsets.values())))
    typer.echo(f"{'subset':<24}" + "".join(f"{name:>13}" for name in names))
    for subset, values in report.subsets.items():
        typer.echo(f"{subset:<24}" + "".join(f"{values[name]:>13.3f}".replace(".000", "    ") for name in names))


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
    )  # fmt: skip
