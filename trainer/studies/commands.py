"""The commands of steps: a command of `unijudge`, a Python module, or another program."""

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
    """Splits a command line into words, to run it without a shell. `unijudge` and `python` use this environment.

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
    """Returns whether a command line is a command of `unijudge`."""
    return words_of(command)[1:3] == OURS


def check_commands(cells: Iterable[Cell]) -> None:
    """Checks that every command of a study exists on this machine, before the first step runs.

    Raises:
        SettingsError: A command does not exist. The message names the step and the command.
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
            raise SettingsError(
                f"steps.{step}: there is no Python module {shown(name)} here. Correct its name"
            )
    elif shutil.which(program) is None:
        raise SettingsError(
            f"steps.{step}: there is no program {shown(program)} here. Install it, or correct its name"
        )


def _check_ours(step: str, words: list[str]) -> None:
    """Checks the words against the groups and commands of `unijudge`."""
    command = typer.main.get_command(whole())
    context = command.make_context("unijudge", [], resilient_parsing=True)
    prefix = "unijudge"
    for word in words:
        group = getattr(command, "get_command", None)
        if group is None:
            return
        subcommand = group(context, word)
        if subcommand is None:
            known = ", ".join(command.list_commands(context))  # type: ignore[attr-defined]  # every group has it
            raise SettingsError(
                f"steps.{step}: {prefix} has no command {shown(word)}. Choose from {known}"
            )
        command, prefix = subcommand, f"{prefix} {word}"
    if hasattr(command, "get_command"):
        raise SettingsError(
            f"steps.{step}: `{prefix}` alone does nothing. Name one of its commands"
        )


def _has_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False
