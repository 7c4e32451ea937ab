"""`unijudge mine submit | jobs | status | logs | cancel`: scoring on a cluster."""

from typing import Annotated

import typer

from miner.settings import ScoreSettings
from unijudge.job import ExampleOption, FileAndSettings, command_settings, job

Address = Annotated[str, typer.Option(help="Of the cluster's dashboard.")]
JobId = Annotated[str, typer.Argument(help="The id that `mine submit` printed.")]
PANEL = "On a cluster"
LOCAL_CLUSTER = "http://127.0.0.1:8265"
STOP_WAIT_S = 600


def submit(
    words: FileAndSettings = None,
    address: Address = LOCAL_CLUSTER,
    stop_wait: Annotated[
        int, typer.Option(min=1, help="Seconds that a cancelled job has for its shards.")
    ] = STOP_WAIT_S,
    example: ExampleOption = False,
) -> None:
    """Score on a cluster: the settings of `score`, as a Ray job that goes on without this machine."""
    resolved = command_settings(ScoreSettings, words, example)
    from miner.scoring import ray_jobs

    with ray_jobs.cluster(address) as client:
        typer.echo(ray_jobs.submit(client, resolved, stop_wait))


def list_jobs(address: Address = LOCAL_CLUSTER) -> None:
    """The scoring jobs of a cluster, newest first."""
    from miner.scoring import ray_jobs

    with ray_jobs.cluster(address) as client:
        typer.echo("\n".join(ray_jobs.jobs(client)) or "no scoring jobs")


def status(job_id: JobId, address: Address = LOCAL_CLUSTER) -> None:
    """Whether a job runs, and how far it is."""
    from miner.scoring import ray_jobs

    with ray_jobs.cluster(address) as client:
        typer.echo(ray_jobs.status(client, job_id))


def logs(
    job_id: JobId,
    address: Address = LOCAL_CLUSTER,
    follow: Annotated[bool, typer.Option(help="Until the job ends.")] = False,
) -> None:
    """What a job printed; with --follow it ends with status 1 unless the job succeeded."""
    from miner.scoring import ray_jobs

    with ray_jobs.cluster(address) as client:
        if follow:
            state = ray_jobs.follow(client, job_id, lambda text: typer.echo(text, nl=False))
            if state != "SUCCEEDED":
                typer.echo(f"{job_id}: {state}", err=True)
                raise typer.Exit(1)
        else:
            typer.echo(client.get_job_logs(job_id), nl=False)


def cancel(job_id: JobId, address: Address = LOCAL_CLUSTER) -> None:
    """Let a job finish its shards in work, and end; the same `submit` goes on later."""
    from miner.scoring import ray_jobs

    with ray_jobs.cluster(address) as client:
        stopped = client.stop_job(job_id)
        told = "asked to stop; `mine status` says when it has" if stopped else "has ended already"
        typer.echo(f"{job_id}: {told}")


def add_to(app: typer.Typer) -> None:
    """Adds these commands to `unijudge mine`."""
    app.command(cls=job(ScoreSettings), rich_help_panel=PANEL)(submit)
    app.command("jobs", rich_help_panel=PANEL)(list_jobs)
    for command in (status, logs, cancel):
        app.command(rich_help_panel=PANEL)(command)
