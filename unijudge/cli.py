"""The command line: `unijudge judge | mine | train`, `describe` and `check`.

The groups come from the entry points `unijudge.commands`, so this package imports no program. Only this module turns
errors into output: a known error becomes one line and exit status 1, an unexpected error three lines and a report.
"""

import io
import json
import logging
import os
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
from unijudge.storage.access_errors import CURE_OF_ERRNO, SPENT
from unijudge.storage.locations import address, locate
from unijudge.storage.stores import exists
from unijudge.unexpected import lacking_package, told, versions

Ours = Annotated[
    list[Path], typer.Argument(help="Folders or URLs that this program wrote.", parser=locate)
]
PlacesArgument = Annotated[
    list[Path],
    typer.Argument(
        help="Folders or URLs that this program wrote, or files that are not imported yet.",
        parser=locate,
    ),
]
Images = Annotated[
    Path | None,
    typer.Option(
        help="The root of the image paths of files that are not imported yet. Default: their folder.",
        parser=locate,
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option("--overwrite", help="Replace an output of the same kind that exists already."),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print JSON for programs, one line for each result.")
]

UsageError: Any = typer.BadParameter.__base__
"""typer's error class for an invalid command line, which typer does not export by name."""
INTERRUPTED = 130
"""The usual exit status of a command that Ctrl-C ended."""
STOPPED = "Stopped. Run the same command again to resume."
"""Printed for every command that a signal ended. Every file is complete or absent, so each command may run again."""

app = typer.Typer(
    help="Judge, mine and train universal multimodal embeddings with a multimodal LLM as the judge. "
    "--version prints the installed versions.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command()
def describe(folders: Ours, as_json: AsJson = False) -> None:
    """Prints how each folder was made, and its progress."""
    _of_each(folders, _in_json(inventory.facts) if as_json else inventory.describe)


@app.command()
def check(places: PlacesArgument, images: Images = None, as_json: AsJson = False) -> None:
    """Checks every file of each folder of this program. For other files, shows what an import would read.

    With --json, each folder without a fault is a line of JSON. Faults go to stderr, and end with status 1.
    """
    ours = [place for place in places if inventory.is_ours(place)]
    if not ours and (len(places) > 1 or exists(places[0])):
        root = [] if images is None else ["--images", address(images)]
        run(["mine", "import", "look", *map(address, places), *root])
        return
    if ours and len(ours) < len(places):
        other = next(place for place in places if place not in ours)
        raise SettingsError(
            f"{other}: is not a folder of this program, but {ours[0]} is. Give files that are not imported yet in a "
            "separate command"
        )
    _of_each(places, _in_json(inventory.checked) if as_json else inventory.check)


def _in_json(facts: Callable[[Path], dict[str, Any]]) -> Callable[[Path], str]:
    return lambda folder: json.dumps(facts(folder))


def _of_each(folders: Sequence[Path], say: Callable[[Path], str]) -> None:
    """Prints `say` of each folder. A fault does not stop later folders, and the first fault is raised at the end."""
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
    """Returns the command line with the groups of every installed program."""
    for group in sorted(entry_points(group="unijudge.commands")):
        app.add_typer(group.load(), name=group.name)
    return app


def run(words: Sequence[str]) -> None:
    """Runs a command in this process as if it were typed, so that a program can use another without importing it.

    Args:
        words: Group, command and arguments, such as `["mine", "import", "pairs", "pairs.csv", "corpus"]`.

    Raises:
        UnijudgeError: An error of the command.
    """
    typer.main.get_command(whole()).main(list(words), prog_name="unijudge", standalone_mode=False)


def main() -> None:
    """Runs the command line. A known error prints one line, an unexpected error three, and Ctrl-C one."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Safe("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for chatty in ("httpx2", "faiss.loader", "aiobotocore", "botocore"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    # The progress bars of Hugging Face's libraries are for a person at a terminal, not for a log file.
    if sys.stderr is None or not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    sys.exit(_status(sys.argv[1:]))


def _status(words: list[str]) -> int:
    """Runs a command as a person typed it, and returns the exit status."""
    for stream in (sys.stdout, sys.stderr):
        # File names that are not UTF-8 must be printable too.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if "--version" in words[:3]:
        typer.echo("\n".join(versions()))
        return 0
    try:
        command = typer.main.get_command(whole())
        status = command.main(_asked(words), prog_name="unijudge", standalone_mode=False)
        return _end(STOPPED, INTERRUPTED) if status == INTERRUPTED else int(status or 0)
    except UsageError as error:
        usage = error.ctx.get_usage() + "\n" if error.ctx else ""
        return _end(f"{usage}error: {_brief(error.format_message(), words)}", error.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        return _end(STOPPED, INTERRUPTED)
    except Exception as error:  # noqa: BLE001  no later code can report the error
        return _failed(first_error(error) if isinstance(error, ExceptionGroup) else error, words)


def _asked(words: list[str]) -> list[str]:
    """Replaces the word `help` with the option `--help`."""
    if words[:1] == ["help"]:
        return [*words[1:], "--help"]
    if words[1:] != ["help"]:
        return words

    # Only a group of commands has no argument that could be the word `help`.
    groups = {entry.name for entry in entry_points(group="unijudge.commands")}
    return [words[0], "--help"] if words[0] in groups else words


def _failed(error: Exception, words: list[str]) -> int:
    if isinstance(error, UnijudgeError):
        return _end(f"error: {_brief(str(error), words)}")
    if isinstance(error, ImportError) and (lacking := lacking_package(error, words)):
        return _end(f"error: {lacking}")
    if isinstance(error, BrokenPipeError):  # the reader of a pipe, such as `head`, stopped
        sys.stdout = io.StringIO()
        return 1
    if isinstance(error, OSError) and error.errno in SPENT:
        place = error.filename or "the output of this command"
        return _end(
            f"error: {place}: {error.strerror}. {CURE_OF_ERRNO[error.errno]}, then run the same command again"
        )
    return _end("\n".join(told(error, words)))


def _brief(message: str, words: list[str]) -> str:
    """Removes passwords from a message, and shortens long values of the command line."""
    for word in words:
        for value in (word, word.partition("=")[2]):
            while len(value) > LONGEST_WORD and (start := message.find(value[: LONGEST + 1])) >= 0:
                # The message may hold only the beginning of the value.
                end = start + _common_length(value, message[start:])
                message = f"{message[:start]}{shown_name(value)}{message[end:]}"
    return in_brief(without_passwords(message))


def _common_length(left: str, right: str) -> int:
    """Returns the length of the common beginning of two texts."""
    pairs = zip(left, right, strict=False)
    for index, (one, other) in enumerate(pairs):
        if one != other:
            return index
    return min(len(left), len(right))


def _end(message: str, status: int = 1) -> int:
    typer.secho(message, fg="red", err=True)
    return status


class _Safe(logging.Formatter):
    """A formatter that shortens log lines and removes passwords from URLs, since other libraries log URLs too."""

    def format(self, record: logging.LogRecord) -> str:
        line = without_passwords(super().format(record))
        return line if record.exc_info else in_brief(line)
