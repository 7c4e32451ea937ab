"""`unijudge judge`: start the service, see what it lacks, verify one, make a key."""

import asyncio
import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from judge_service.settings import ServiceSettings
from unijudge.cli import Example, Overrides, SettingsFile, command_settings
from unijudge.locations import locate

Device = Literal["cpu", "cuda"]
Dtype = Literal["float32", "bfloat16", "float16"]

app = typer.Typer(help="Serve the judge over HTTP.", no_args_is_help=True)


@app.command()
def serve(settings: SettingsFile = None, overrides: Overrides = None, example: Example = False) -> None:
    """Start N replicas on a local Ray or an existing cluster; Ctrl-C drains and stops."""
    resolved = command_settings(ServiceSettings, settings, overrides, example)
    # Ray reads it when it is imported: a SIGTERM while Ray starts would end this process with a stack trace.
    os.environ["RAY_DISABLE_FAILURE_SIGNAL_HANDLER"] = "1"
    from judge_service.service import run

    del os.environ["RAY_DISABLE_FAILURE_SIGNAL_HANDLER"]  # Ray's own processes keep their handlers
    run(resolved)


@app.command()
def verify(
    url: Annotated[str, typer.Argument(help="Where the service listens.")],
    settings: SettingsFile = None,
    overrides: Overrides = None,
    queries: Annotated[int, typer.Option(min=1, help="Of 14 pairs each.")] = 15,
    tolerance: Annotated[float | None, typer.Option(help="In log-odds; default: by the service's dtype.")] = None,
    key_file: Annotated[
        Path | None, typer.Option(help="Holds the service's key, where it wants one.", parser=locate)
    ] = None,
    device: Annotated[Device, typer.Option(help="Where the reference runs.")] = "cpu",
    dtype: Annotated[Dtype, typer.Option(help="What the reference computes in.")] = "float32",
) -> None:
    """Compare a running service with the model itself, given by the settings of `serve`; status 1 if they differ.

    The reference is a second copy of the model in this process, by default on the CPU in float32: exact, and slow for a
    large model (fewer --queries help). On a GPU it needs room beside the service: --device cuda --dtype bfloat16.
    """
    resolved = command_settings(ServiceSettings, settings, overrides, example=False)
    from judge_service.backends import open_judge
    from judge_service.verify import check_comparable, check_memory
    from judge_service.verify import verify as run
    from unijudge.client import JudgeClient
    from unijudge.keys import read_key
    from unijudge.provenance import without_passwords

    exact = resolved.model.model_copy(update={"backend": "transformers", "dtype": dtype, "device": device})
    here = {"model": exact, "tensor_parallel_size": 1, "gpus_per_replica": 0}
    alone = resolved.model_copy(update=here)
    key = read_key(key_file)

    async def compare() -> bool:
        async with JudgeClient(url, key=key) as served:
            typer.echo(f"{without_passwords(url)}: {served.identity}")
            # What is quick to refuse comes before the reference: a large model takes minutes to load.
            check_comparable(served.identity)
            check_memory(alone)
            reference = await asyncio.to_thread(open_judge, alone)
            found = await run(served, reference, queries=queries, tolerance=tolerance)
        typer.echo("\n".join(found.lines()))
        return found.passed

    if not asyncio.run(compare()):
        raise typer.Exit(1)


@app.command()
def doctor(settings: SettingsFile = None, overrides: Overrides = None) -> None:
    """Say what this machine lacks for these settings of `serve`, with the cure, and score a pair; status 1 if so."""
    resolved = command_settings(ServiceSettings, settings, overrides, example=False)
    from judge_service.doctor import examine

    findings = asyncio.run(examine(resolved))
    for finding in findings:
        typer.echo(finding.line())
    if any(finding.state == "LACKS" for finding in findings):
        raise typer.Exit(1)


@app.command()
def key() -> None:
    """Make a bearer key for clients, and the digest of it for the service's settings."""
    from judge_service.front.auth import new_key

    made, digest = new_key()
    typer.echo(f"key, for the clients' key file:      {made}\ndigest, for key_sha256 in judge.toml: {digest}")
