"""The commands `unijudge mine submit | jobs | status | logs | cancel` for scoring jobs on a cluster."""

from typing import Annotated

import typer

from miner.settings import ScoreSettings
from unijudge.job import ExampleOption, FileAndSettings, command_settings, job

Address = Annotated[str, typer.Option(help="The address of the cluster's dashboard.")]
JobId = Annotated[str, typer.Argument(help="The id that `mine submit` printed.")]
PANEL = "On a cluster"
LOCAL_CLUSTER = "http://127.0.0.1:8265"
STOP_WAIT_S = 600


def submit(
    words: FileAndSettings = None,
    address: Address = LOCAL_CLUSTER,
    stop_wait: Annotated[
        int, typer.Option(min=1, help="Seconds that a cancelled job has to finish its shards.")
    ] = STOP_WAIT_S,
    example: ExampleOption = False,
) -> None:
    """Start a scoring job on a cluster, with the settings of `score`. The job does not need this machine any more."""
    resolved = command_settings(ScoreSettings, words, example)
    from miner.scoring import ray_jobs

    with ray_jobs.cluster(address) as client:
        typer.echo(ray_jobs.submit(client, resolved, stop_wait))


def list_jobs(address: Address = LOCAL_CLUSTER) -> None:
    """List the scoring jobs of a cluster, newest first."""
    from miner.scoring import ray_jobs

    with ray_jobs.cluster(address) as client:
        typer.echo("\n".join(ray_jobs.jobs(client)) or "no scoring jobs")


def status(job_id: JobId, address: Address = LOCAL_CLUSTER) -> None:
    """Print the state and the progress of a job."""
    from miner.scoring import ray_jobs

    with ray_jobs.cluster(address) as client:
        typer.echo(ray_jobs.status(client, job_id))


def logs(
    job_id: JobId,
    address: Address = LOCAL_CLUSTER,
    follow: Annotated[bool, typer.Option(help="Print new lines until the job ends.")] = False,
) -> None:
    """Print the log of a job. With --follow, the exit status is 1 unless the job succeeds."""
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
    """Stop a job after its running shards. Run the same `submit` again to resume."""
    from miner.scoring import ray_jobs

    with ray_jobs.cluster(address) as client:
        stopped = client.stop_job(job_id)
        message = (
            "is stopping. See its state with `mine status`" if stopped else "has already ended"
        )
        typer.echo(f"{job_id}: {message}")


def add_to(app: typer.Typer) -> None:
    """Adds these commands to `unijudge mine`."""
    app.command(cls=job(ScoreSettings), rich_help_panel=PANEL)(submit)
    app.command("jobs", rich_help_panel=PANEL)(list_jobs)
    for command in (status, logs, cancel):
        app.command(rich_help_panel=PANEL)(command)
