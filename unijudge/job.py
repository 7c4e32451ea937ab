"""How a job is given on the command line: an optional TOML file of settings, then key=value, in any number.

    unijudge mine score job.toml corpus=c vectors=v out=s k=100

`--help` of such a command shows its settings, the required ones first, and a shell completes their keys.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from pydantic.fields import FieldInfo
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from typer.core import TyperCommand, TyperGroup

from unijudge.errors import SettingsError
from unijudge.settings import Settings, example, load_settings
from unijudge.shown import shown_name
from unijudge.storage.locations import locate

S = TypeVar("S", bound=Settings)

KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*")
"""A setting's name, as it stands before the `=`."""


class JobCommand(TyperCommand):
    """A command that is given by settings: its help shows them."""

    kind: type[Settings]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """The usual help, and then the settings by table."""
        super().format_help(ctx, formatter)
        console = Console()
        for title, rows in settings_by_table(self.kind):
            table = Table.grid(padding=(0, 2))
            for row in rows:
                table.add_row(*row)
            console.print(Panel(table, title=title, title_align="left", border_style="dim"))


def in_order(*names: str) -> type[TyperGroup]:
    """The class of a group that lists its commands in the order in which they are used; others follow."""

    class InOrder(TyperGroup):
        def list_commands(self, ctx: Any) -> list[str]:
            known = super().list_commands(ctx)
            return [*(name for name in names if name in known), *(name for name in known if name not in names)]

    return InOrder


def job(kind: type[Settings]) -> type[JobCommand]:
    """The class of a command that takes these settings, for `app.command(cls=…)`."""
    return type("JobCommand", (JobCommand,), {"kind": kind})


def _complete(ctx: Any, incomplete: str) -> list[str]:
    """Keys that begin like a word; files are completed by the shell."""
    kind = getattr(ctx.command, "kind", None)
    if kind is None or "=" in incomplete:
        return []
    return [f"{key}=" for key, _ in _fields(kind) if key.startswith(incomplete)]


FileAndSettings = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="FILE | KEY=VALUE",
        help="A TOML file of settings (--example prints one), then settings: key=value, as in model.name=NAME.",
        autocompletion=_complete,
    ),
]
KeyValueOption = Annotated[
    list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings that replace those of the file.")
]
ExampleOption = Annotated[bool, typer.Option("--example", help="Print a commented settings file, and stop.")]


def is_setting(word: str) -> bool:
    """Whether a word is key=value, and not the name of a file.

    Example:
        >>> is_setting("model.name=a/b=c"), is_setting("jobs/a=b.toml"), is_setting("job.toml")
        (True, False, False)
    """
    key, separator, _ = word.partition("=")
    return bool(separator) and KEY.fullmatch(key) is not None


def _is_file(word: str) -> bool:
    """Whether a first word is a path, in which an equals sign may stand behind a slash."""
    return "=" not in word or (not is_setting(word) and "/" in word.partition("=")[0])


def file_and_settings(words: list[str]) -> tuple[Path | None, list[str]]:
    """The settings file, if any, and the settings.

    Raises:
        SettingsError: A word is neither the first one nor key=value, or the first one cannot be a path.
    """
    file: Path | None = None
    if words and _is_file(words[0]):
        try:
            file = locate(words[0])
        except ValueError as error:  # no such name can be
            raise SettingsError(f"{error}; give a TOML file of settings, or key=value") from error
        words = words[1:]
    for word in words:
        if "=" not in word:
            raise SettingsError(
                f"{shown_name(word)}: not key=value. Write a setting as in batch_size=8; a file of settings stands "
                "before all of them"
            )
    return file, words


def command_settings(kind: type[S], words: list[str] | None, show_example: bool = False) -> S:
    """The settings of one command; with `--example` prints them as a TOML file and stops."""
    if show_example:
        typer.echo(example(kind), nl=False)
        raise typer.Exit
    return load_settings(kind, *file_and_settings(words or []))


def _fields(kind: type[Settings], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Dotted key → field, of all tables."""
    for name, field in kind.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, Settings):
            yield from _fields(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def settings_by_table(kind: type[Settings]) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """A title, and rows of key, default and meaning, for each table; required settings stand in the first one."""
    required, tables = [], dict[str, list[tuple[str, str, str]]]()
    for key, field in _fields(kind):
        meaning = " ".join((field.description or "").split())
        if field.is_required():
            required.append((key, "", meaning))
            continue
        table = key.rpartition(".")[0]
        tables.setdefault(table, []).append((key, _default(field), meaning))
    named = [(f"Settings, {table}" if table else "Settings", rows) for table, rows in tables.items()]
    return [("Required settings", required), *named] if required else named


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if value is None:
        return "–"
    if isinstance(value, tuple | frozenset):
        value = list(value)
    return json.dumps(value, ensure_ascii=False, default=str)
