"""The command `unijudge judge`: create a key, check a machine, start a service, verify its scores, measure a judge."""

import asyncio
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from judge_service.settings import ServiceSettings
from unijudge.cli import Overwrite
from unijudge.job import ExampleOption, FileAndSettings, command_settings, in_order, job
from unijudge.storage.locations import locate

Device = Literal["cpu", "cuda"]
Dtype = Literal["float32", "bfloat16", "float16"]
Layout = Literal["pairs", "mmeb", "sugarcrepe"]
KeyFile = Annotated[
    Path | None, typer.Option(help="File with the key, if the service requires one.", parser=locate)
]
LINES = 10
"""The number of lines that show the progress of a measurement in a log."""

logger = logging.getLogger(__name__)

USED = in_order("key", "doctor", "serve", "verify", "bench")

app = typer.Typer(cls=USED, help="Serve the judge over HTTP.", no_args_is_help=True)


@app.command(cls=job(ServiceSettings))
def serve(words: FileAndSettings = None, example: ExampleOption = False) -> None:
    """Start the replicas on a local Ray or an existing cluster. Ctrl-C drains and stops the service."""
    resolved = command_settings(ServiceSettings, words, example)
    # Ray reads this variable at import. Without it, a SIGTERM during Ray's start would print a stack trace.
    os.environ["RAY_DISABLE_FAILURE_SIGNAL_HANDLER"] = "1"
    from judge_service.service import run

    # Ray's other processes keep their handlers.
    del os.environ["RAY_DISABLE_FAILURE_SIGNAL_HANDLER"]
    run(resolved)


@app.command(cls=job(ServiceSettings))
def verify(
    url: Annotated[str, typer.Argument(help="URL of the service.")],
    words: FileAndSettings = None,
    queries: Annotated[
        int, typer.Option(min=1, help="Number of queries, with 14 pairs each.")
    ] = 15,
    tolerance: Annotated[
        float | None,
        typer.Option(help="Largest difference in log-odds. Default: by the service's dtype."),
    ] = None,
    key_file: KeyFile = None,
    device: Annotated[Device, typer.Option(help="Device of the reference.")] = "cpu",
    dtype: Annotated[Dtype, typer.Option(help="Dtype of the reference.")] = "float32",
) -> None:
    """Compare a running service with the model itself. Exit status 1 if the scores differ.

    Give the settings of `serve`. The reference is a second copy of the model in this process, by default on the CPU in
    float32: exact, but slow for a large model (use fewer --queries). On a GPU the reference needs free memory beside
    the service: --device cuda --dtype bfloat16.
    """
    resolved = command_settings(ServiceSettings, words)
    from judge_service.backends import open_judge
    from judge_service.checks.verify import check_comparable, check_memory
    from judge_service.checks.verify import verify as run
    from unijudge.client.client import JudgeClient
    from unijudge.client.keys import read_key
    from unijudge.provenance import without_passwords

    # The reference runs in this process, whatever the settings of the service.
    exact = resolved.model.model_copy(
        update={"backend": "transformers", "dtype": dtype, "device": device}
    )
    changes = {"model": exact, "tensor_parallel_size": 1, "gpus_per_replica": 0}
    reference_settings = resolved.model_copy(update=changes)
    key = read_key(key_file)

    async def compare() -> bool:
        async with JudgeClient(url, key=key) as served:
            typer.echo(f"{without_passwords(url)}: {served.identity}")
            # The quick checks come first, since a large model needs minutes to load.
            check_comparable(served.identity)
            check_memory(reference_settings)
            reference = await asyncio.to_thread(open_judge, reference_settings)
            verification = await run(served, reference, queries=queries, tolerance=tolerance)
        typer.echo("\n".join(verification.lines()))
        return verification.passed

    if not asyncio.run(compare()):
        raise typer.Exit(1)


@app.command()
def bench(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="Labelled pairs, MMEB rows with their negatives, or SugarCrepe's JSON.",
            parser=locate,
        ),
    ],
    service: Annotated[
        str | None,
        typer.Option(metavar="URL", help="URL of the service. Required without --compare."),
    ] = None,
    out: Annotated[Path, typer.Option(help="The folder to write.", parser=locate)] = Path(
        "judge-bench"
    ),
    layout: Annotated[
        Layout | None,
        typer.Option("--format", help="Format of the files. Default: guessed for each file."),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            help="Root of the image paths. Default: the folder of the files.", parser=locate
        ),
    ] = None,
    instruction: Annotated[
        str | None, typer.Option(help="SugarCrepe: a text beside each image.")
    ] = None,
    queries: Annotated[
        int | None,
        typer.Option(min=1, help="Most queries of each subset, drawn uniformly. Default: all."),
    ] = None,
    injections: Annotated[
        int,
        typer.Option(
            min=0, help="Number of candidates to which texts that ask for a Yes are added. 0: none."
        ),
    ] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all draws.")] = 0,
    key_file: KeyFile = None,
    in_flight: Annotated[int, typer.Option(min=1, help="Most queries in flight.")] = 64,
    compare: Annotated[
        bool,
        typer.Option(
            "--compare", help="Compare FILES, two folders of this command, without a service."
        ),
    ] = False,
    retry_for: Annotated[
        float, typer.Option(min=0, help="Seconds of retries while the service does not answer.")
    ] = 60,
    overwrite: Overwrite = False,
) -> None:
    """Measure a judge on labelled pairs: ROC-AUC, calibration, ties, and texts that try to steer the judge.

    Writes bench.json, scores.parquet and a page. Columns of pairs: query_text, query_image, candidate_text,
    candidate_image, label (1 or 0); optional: subset, kind (of a negative).
    """
    # A comparison only reads the two folders.
    if compare:
        if len(files) != 2:
            raise typer.BadParameter("--compare needs two folders of `judge bench`")
        from judge_service.bench.compare import compare_judges

        typer.echo(compare_judges(files[0], files[1], seed))
        return
    if service is None:
        raise typer.BadParameter("Missing option '--service': the URL of a running judge service")
    from judge_service.bench.report import lines_of
    from judge_service.bench.result import PAGE
    from judge_service.bench.run import BenchJob
    from judge_service.bench.run import bench as run
    from unijudge.client.keys import read_key

    job = BenchJob(
        files,
        service,
        out,
        layout=layout,
        images=images,
        instruction=instruction,
        queries=queries,
        injections=injections,
        seed=seed,
        key=read_key(key_file),
        at_once=in_flight,
        retry_for_s=retry_for,
    )
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    bar = Progress(*columns, transient=True)
    # Without a terminal the bar would print an empty line.
    bar.disable = not bar.console.is_terminal
    with bar:
        made = run(job, _reporter(bar), overwrite=overwrite)
    typer.echo(f"{lines_of(made)}\n\nOpen {out / PAGE} in a browser.")


def _reporter(bar: Progress) -> Callable[[str, int, int], None]:
    """Returns a function that shows the progress: a bar on a terminal, and ten lines in a log."""
    tasks: dict[str, tuple[TaskID, float]] = {}

    def report(what: str, done: int, total: int) -> None:
        if what not in tasks:
            tasks[what] = bar.add_task(what, total=total), time.monotonic()
        task, begun = tasks[what]
        before = int(bar.tasks[task].completed)
        bar.update(task, completed=done)

        # In a log, each tenth of the pairs is a line.
        if not bar.console.is_terminal and done * LINES // total > before * LINES // total:
            rate = done / max(time.monotonic() - begun, 1e-3)
            logger.info(
                "%d of %d %s judged, %.1f pairs/s, %.0f s left",
                done,
                total,
                what,
                rate,
                (total - done) / rate,
            )

    return report


@app.command(cls=job(ServiceSettings))
def doctor(words: FileAndSettings = None) -> None:
    """Check this machine for the settings of `serve`, and score a pair. Exit status 1 if something is missing."""
    resolved = command_settings(ServiceSettings, words)
    from judge_service.checks.doctor import examine

    findings = asyncio.run(examine(resolved))
    for finding in findings:
        typer.echo(finding.line())
    if any(finding.state == "LACKS" for finding in findings):
        raise typer.Exit(1)


@app.command()
def key() -> None:
    """Create a bearer key for clients, and its digest for the service's settings."""
    from judge_service.front.auth import new_key

    created, digest = new_key()
    typer.echo(
        f"key, for the clients' key file:      {created}\ndigest, for key_sha256 in judge.toml: {digest}"
    )
