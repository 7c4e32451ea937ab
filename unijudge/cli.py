"""The command line: `unijudge judge | mine | train`, `describe` and `check`.

The groups come from the entry points `unijudge.commands`, so this package imports no program. This is the only place
that turns an error into one line and exit status 1.
"""

import logging
import sys
from collections.abc import Sequence
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from unijudge import inventory
from unijudge.errors import UnijudgeError
from unijudge.locations import locate
from unijudge.provenance import without_passwords
from unijudge.settings import Settings, load_settings
from unijudge.settings import example as print_example

S = TypeVar("S", bound=Settings)

SettingsFile = Annotated[Path | None, typer.Argument(help="A TOML file of settings; --example prints one.")]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="dotted.key=value; may be given several times.")]
Ours = Annotated[Path, typer.Argument(help="A folder or URL that this program wrote.", parser=locate)]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an output of the same kind that exists already.")]
Example = Annotated[bool, typer.Option("--example", help="Print a commented settings file, and stop.")]


def command_settings(kind: type[S], file: Path | None, overrides: list[str] | None, example: bool) -> S:
    """The settings of one command; with `--example` prints them as a TOML file and stops."""
    if example:
        typer.echo(print_example(kind), nl=False)
        raise typer.Exit
    return load_settings(kind, file, overrides or [])


app = typer.Typer(
    help="Judge, mine and train universal multimodal embeddings with a multimodal LLM as the judge.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command()
def describe(folder: Ours) -> None:
    """What made this folder, and how far it is."""
    typer.echo(inventory.describe(folder))


@app.command()
def check(folder: Ours) -> None:
    """Reads everything in this folder and says whether it is whole."""
    typer.echo(inventory.check(folder))


@cache
def whole() -> typer.Typer:
    """The command line with the groups of every program that is installed."""
    for group in sorted(entry_points(group="unijudge.commands")):
        app.add_typer(group.load(), name=group.name)
    return app


def run(words: Sequence[str]) -> None:
    """Runs one command in this process, as if it was typed: so one program uses another without importing it.

    Args:
        words: Group, command and arguments, as in `["mine", "import", "pairs", "pairs.csv", "corpus"]`.

    Raises:
        UnijudgeError: What the command raises.
    """
    typer.main.get_command(whole()).main(list(words), prog_name="unijudge", standalone_mode=False)


def main() -> None:
    """Runs the command line."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Safe("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for chatty in ("httpx2", "faiss.loader", "aiobotocore", "botocore"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    try:
        whole()()
    except UnijudgeError as error:
        typer.secho(f"error: {without_passwords(str(error))}", fg="red", err=True)
        sys.exit(1)


class _Safe(logging.Formatter):
    """Lines of a log without the passwords of the URLs in them, which other libraries print too."""

    def format(self, record: logging.LogRecord) -> str:
        return without_passwords(super().format(record))
