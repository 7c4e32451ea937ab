"""The command line: `unijudge judge | mine | train`, `describe` and `check`.

The groups come from the entry points `unijudge.commands`, so this package imports no program. This is the only place
that turns an error into one line and exit status 1. What nobody foresaw becomes three lines, and a report.
"""

import io
import itertools
import logging
import sys
from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any

import typer

from unijudge.errors import SettingsError, UnijudgeError, first_error
from unijudge.formats import inventory
from unijudge.provenance import without_passwords
from unijudge.shown import LONGEST, LONGEST_WORD, in_brief, shown_name
from unijudge.storage.access_errors import CURES, SPENT
from unijudge.storage.locations import address, locate
from unijudge.storage.stores import exists
from unijudge.unexpected import lacking_package, told, versions

Ours = Annotated[list[Path], typer.Argument(help="Folders or URLs that this program wrote.", parser=locate)]
Places = Annotated[
    list[Path],
    typer.Argument(help="Folders or URLs that this program wrote, or files that are not imported yet.", parser=locate),
]
Images = Annotated[
    Path | None,
    typer.Option(
        help="The root of the image paths of files that are not imported yet; default: beside them.", parser=locate
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an output of the same kind that exists already.")]


UsageError: Any = typer.BadParameter.__base__
"""What typer raises where a command line is none; typer has no name of its own for it."""
INTERRUPTED = 130
"""The status of a command that Ctrl-C ended, by custom."""

app = typer.Typer(
    help="Judge, mine and train universal multimodal embeddings with a multimodal LLM as the judge. "
    "--version says which versions are here.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command()
def describe(folders: Ours) -> None:
    """What made each folder, and how far it is."""
    _of_each(folders, inventory.describe)


@app.command()
def check(places: Places, images: Images = None) -> None:
    """Reads all of each folder of this program and says if it is whole; of other files, what an import would read."""
    ours = [place for place in places if inventory.is_ours(place)]
    if not ours and (len(places) > 1 or exists(places[0])):
        root = [] if images is None else ["--images", address(images)]
        run(["mine", "import", "look", *map(address, places), *root])
        return
    if ours and len(ours) < len(places):
        other = next(place for place in places if place not in ours)
        raise SettingsError(
            f"{other}: is no folder of this program, and {ours[0]} is one. Give files that are not imported yet in a "
            "command of their own"
        )
    _of_each(places, inventory.check)


def _of_each(folders: Sequence[Path], say: Callable[[Path], str]) -> None:
    """Says something of each folder; a faulty one does not hide those after it, and the first fault is raised."""
    faults = []
    for folder in folders:
        try:
            typer.echo(say(folder))
        except UnijudgeError as error:
            faults.append(error)
    for fault in faults[1:]:
        _end(f"error: {_brief(str(fault), [])}")
    if faults:
        raise faults[0]


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
    """Runs the command line: an error is one line and status 1, an unexpected one three, Ctrl-C none."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Safe("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for chatty in ("httpx2", "faiss.loader", "aiobotocore", "botocore"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    sys.exit(_status(sys.argv[1:]))


def _status(words: list[str]) -> int:
    """Runs one command as a person typed it; with what to end the process."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name on a disk need not be UTF-8, and is shown nevertheless
            stream.reconfigure(errors="backslashreplace")
    if "--version" in words[:3]:
        typer.echo("\n".join(versions()))
        return 0
    try:
        command = typer.main.get_command(whole())
        return int(command.main(_asked(words), prog_name="unijudge", standalone_mode=False) or 0)
    except UsageError as error:
        usage = error.ctx.get_usage() + "\n" if error.ctx else ""
        return _end(f"{usage}error: {_brief(error.format_message(), words)}", error.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001  the last place that can tell a person of it
        return _failed(first_error(error) if isinstance(error, ExceptionGroup) else error, words)


def _asked(words: list[str]) -> list[str]:
    """The same, where somebody asked for help with a word."""
    if words[:1] == ["help"]:
        return [*words[1:], "--help"]
    group = any(words[:1] == [one.name] for one in entry_points(group="unijudge.commands"))
    return [words[0], "--help"] if group and words[1:] == ["help"] else words


def _failed(error: Exception, words: list[str]) -> int:
    if isinstance(error, UnijudgeError):
        return _end(f"error: {_brief(str(error), words)}")
    if isinstance(error, ImportError) and (lacking := lacking_package(error, words)):
        return _end(f"error: {lacking}")
    if isinstance(error, BrokenPipeError):  # `| head` has read enough
        sys.stdout = io.StringIO()
        return 1
    if isinstance(error, OSError) and error.errno in SPENT:
        place = error.filename or "the output of this command"
        return _end(f"error: {place}: {error.strerror}. {CURES[error.errno]}, then run the same command again")
    return _end("\n".join(told(error, words)))


def _brief(message: str, words: list[str]) -> str:
    """A message without passwords, in which a long value of the command line is cut."""
    for word in words:
        for value in (word, word.partition("=")[2]):
            while len(value) > LONGEST_WORD and (start := message.find(value[: LONGEST + 1])) >= 0:
                same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(value, message[start:], strict=False))
                message = f"{message[:start]}{shown_name(value)}{message[start + len(list(same)) :]}"
    return in_brief(without_passwords(message))


def _end(message: str, status: int = 1) -> int:
    typer.secho(message, fg="red", err=True)
    return status


class _Safe(logging.Formatter):
    """Lines of a log, in brief, without the passwords of the URLs in them: other libraries print those too."""

    def format(self, record: logging.LogRecord) -> str:
        line = without_passwords(super().format(record))
        return line if record.exc_info else in_brief(line)
