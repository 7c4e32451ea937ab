"""`unijudge judge`: start the service."""

import typer

from judge_service.settings import ServiceSettings
from unijudge.cli import Example, Overrides, SettingsFile, command_settings

app = typer.Typer(help="Serve the judge over HTTP.", no_args_is_help=True)


@app.callback()
def judge() -> None:
    """Serve the judge over HTTP."""


@app.command()
def serve(settings: SettingsFile = None, overrides: Overrides = None, example: Example = False) -> None:
    """Start N replicas on a local Ray or an existing cluster; Ctrl-C drains and stops."""
    resolved = command_settings(ServiceSettings, settings, overrides, example)
    from judge_service.replica import run

    run(resolved)
