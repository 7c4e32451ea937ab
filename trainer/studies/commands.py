"""What a step's command starts: a command of ours, a Python module, or a program."""

import importlib.util
import shlex
import shutil
import sys
from collections.abc import Iterable

import typer

from trainer.studies.cells import Cell
from unijudge.cli import whole
from unijudge.errors import SettingsError
from unijudge.shown import shown

OURS = ["-m", "unijudge"]


def words_of(command: str) -> list[str]:
    """The words of a command line, to be run without a shell; `unijudge` and `python` are those of this environment.

    Raises:
        SettingsError: A quote is not closed.

    Example:
        >>> words_of("python -m demo.data train")[1:]
        ['-m', 'demo.data', 'train']
    """
    try:
        program, *rest = shlex.split(command)
    except ValueError as error:
        raise SettingsError(f"command {shown(command)}: {error}. Close the quote") from error
    if program == "unijudge":
        return [sys.executable, *OURS, *rest]
    if program in ("python", "python3"):
        return [sys.executable, *rest]
    return [program, *rest]


def is_ours(command: str) -> bool:
    """Whether it is a command of `unijudge`."""
    return words_of(command)[1:3] == OURS


def check_commands(cells: Iterable[Cell]) -> None:
    """Refuses a study before anything runs, if one of its commands does not exist here.

    Raises:
        SettingsError: The step and its command are named.
    """
    checked = set()
    for cell in cells:
        for command in filter(None, (cell.command, cell.service)):
            words = words_of(command)
            start = tuple(words[:5])
            if start not in checked:
                checked.add(start)
                _check(cell.step, words)


def _check(step: str, words: list[str]) -> None:
    program, *rest = words
    if rest[:2] == OURS:
        _check_ours(step, rest[2:])
    elif program == sys.executable and rest[:1] == ["-m"]:
        if not rest[1:] or not _has_module(rest[1]):
            name = rest[1] if rest[1:] else ""
            raise SettingsError(f"steps.{step}: there is no Python module {shown(name)} here. Correct its name")
    elif shutil.which(program) is None:
        raise SettingsError(f"steps.{step}: there is no program {shown(program)} here. Install it, or correct its name")


def _check_ours(step: str, words: list[str]) -> None:
    """Follows the words through the groups of our command line."""
    command = typer.main.get_command(whole())
    context = command.make_context("unijudge", [], resilient_parsing=True)
    said = "unijudge"
    for word in words:
        group = getattr(command, "get_command", None)
        if group is None:
            return
        found = group(context, word)
        if found is None:
            known = ", ".join(command.list_commands(context))  # type: ignore[attr-defined]  # a group has it
            raise SettingsError(f"steps.{step}: {said} has no command {shown(word)}. It has: {known}")
        command, said = found, f"{said} {word}"
    if hasattr(command, "get_command"):
        raise SettingsError(f"steps.{step}: `{said}` alone does nothing. Name one of its commands")


def _has_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False
