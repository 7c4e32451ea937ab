"""The command line: `unijudge judge | mine | train`, `describe` and `check`.

The groups come from the entry points `unijudge.commands`, so this package imports no program. This is the only place
that turns an error into one line and exit status 1.
"""

import logging
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated

import typer

from unijudge import inventory
from unijudge.errors import UnijudgeError

app = typer.Typer(
    help="Judge, mine and train universal multimodal embeddings with a multimodal LLM as the judge.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command()
def describe(folder: Annotated[Path, typer.Argument(help="A folder that this program wrote.")]) -> None:
    """What made this folder, and how far it is."""
    typer.echo(inventory.describe(folder))


@app.command()
def check(folder: Annotated[Path, typer.Argument(help="A folder that this program wrote.")]) -> None:
    """Reads everything in this folder and says whether it is whole."""
    typer.echo(inventory.check(folder))


def main() -> None:
    """Runs the command line."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    for group in sorted(entry_points(group="unijudge.commands")):
        app.add_typer(group.load(), name=group.name)
    try:
        app()
    except UnijudgeError as error:
        typer.secho(f"error: {error}", fg="red", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        typer.secho("interrupted; what was finished is kept", fg="yellow", err=True)
        sys.exit(130)
