"""`unijudge mine submit | jobs | status | logs | cancel`: scoring on a cluster."""

from typing import Annotated

import typer

from miner.settings import ScoreSettings
from unijudge.cli import Example, Overrides, SettingsFile, command_settings

Address = Annotated[str, typer.Option(help="Of the cluster's dashboard.")]
Job = Annotated[str, typer.Argument(help="The id that `mine submit` printed.")]
HERE = "http://127.0.0.1:8265"
STOP_WAIT_S = 600


def submit(
    settings: SettingsFile = None,
    overrides: Overrides = None,
    address: Address = HERE,
    stop_wait: Annotated[
        int, typer.Option(min=1, help="Seconds that a cancelled job has for its shards.")
    ] = STOP_WAIT_S,
    example: Example = False,
) -> None:
    """Score on a cluster: the settings of `score`, as a Ray job that goes on without this machine."""
    resolved = command_settings(ScoreSettings, settings, overrides, example)
    from miner import jobs

    with jobs.cluster(address) as client:
        typer.echo(jobs.submit(client, resolved, stop_wait))


def list_jobs(address: Address = HERE) -> None:
    """The scoring jobs of a cluster, newest first."""
    from miner import jobs

    with jobs.cluster(address) as client:
        typer.echo("\n".join(jobs.jobs(client)) or "no scoring jobs")


def status(job: Job, address: Address = HERE) -> None:
    """Whether a job runs, and how far it is."""
    from miner import jobs

    with jobs.cluster(address) as client:
        typer.echo(jobs.status(client, job))


def logs(
    job: Job, address: Address = HERE, follow: Annotated[bool, typer.Option(help="Until the job ends.")] = False
) -> None:
    """What a job printed; with --follow it ends with status 1 unless the job succeeded."""
    from miner import jobs

    with jobs.cluster(address) as client:
        if follow:
            state = jobs.follow(client, job, lambda text: typer.echo(text, nl=False))
            if state != "SUCCEEDED":
                typer.echo(f"{job}: {state}", err=True)
                raise typer.Exit(1)
        else:
            typer.echo(client.get_job_logs(job), nl=False)


def cancel(job: Job, address: Address = HERE) -> None:
    """Let a job finish its shards in work, and end; the same `submit` goes on later."""
    from miner import jobs

    with jobs.cluster(address) as client:
        stopped = client.stop_job(job)
        typer.echo(f"{job}: " + ("asked to stop; `mine status` says when it has" if stopped else "has ended already"))


def add_to(app: typer.Typer) -> None:
    """Adds these commands to `unijudge mine`."""
    app.command("jobs")(list_jobs)
    for command in (submit, status, logs, cancel):
        app.command()(command)
