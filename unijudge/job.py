"""The settings of a job on the command line: an optional TOML file, and then any number of key=value arguments.

    unijudge mine score job.toml corpus=c vectors=v out=s k=100

`--help` of such a command shows its settings, required settings first, and the shell completes their keys.
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
"""The name of a setting, before the `=`."""


class JobCommand(TyperCommand):
    """A command that takes settings, and shows them in its help."""

    kind: type[Settings]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Prints the usual help, and then the settings, table by table."""
        super().format_help(ctx, formatter)
        console = Console()
        for title, rows in settings_by_table(self.kind):
            table = Table.grid(padding=(0, 2))
            for row in rows:
                table.add_row(*row)
            console.print(Panel(table, title=title, title_align="left", border_style="dim"))


def in_order(*names: str) -> type[TyperGroup]:
    """Returns the class of a command group that lists these commands first, in this order."""

    class InOrder(TyperGroup):
        def list_commands(self, ctx: Any) -> list[str]:
            known = super().list_commands(ctx)
            return [
                *(name for name in names if name in known),
                *(name for name in known if name not in names),
            ]

    return InOrder


def job(kind: type[Settings]) -> type[JobCommand]:
    """Returns the class of a command that takes these settings, for `app.command(cls=…)`."""
    return type("JobCommand", (JobCommand,), {"kind": kind})


def _complete(ctx: Any, incomplete: str) -> list[str]:
    """Returns the keys that begin with a word. The shell completes the names of files."""
    kind = getattr(ctx.command, "kind", None)
    if kind is None or "=" in incomplete:
        return []
    return [f"{key}=" for key, _ in _fields(kind) if key.startswith(incomplete)]


FileAndSettings = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="FILE | KEY=VALUE",
        help="A TOML settings file (--example prints a template), then settings as key=value, such as model.name=NAME.",
        autocompletion=_complete,
    ),
]
KeyValueOption = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Settings that override the settings file."),
]
ExampleOption = Annotated[
    bool, typer.Option("--example", help="Print a commented settings file, and exit.")
]


def is_setting(word: str) -> bool:
    """Whether a word is key=value, and not the name of a file.

    Example:
        >>> is_setting("model.name=a/b=c"), is_setting("jobs/a=b.toml"), is_setting("job.toml")
        (True, False, False)
    """
    key, separator, _ = word.partition("=")
    return bool(separator) and KEY.fullmatch(key) is not None


def _is_file(word: str) -> bool:
    """Whether the first word is a path. A path may have an equals sign after a slash."""
    return "=" not in word or (not is_setting(word) and "/" in word.partition("=")[0])


def file_and_settings(words: list[str]) -> tuple[Path | None, list[str]]:
    """Splits the words of a command into the settings file, if any, and the settings.

    Raises:
        SettingsError: The first word is neither key=value nor a valid path, or a later word is not key=value.
    """
    file: Path | None = None
    if words and _is_file(words[0]):
        try:
            file = locate(words[0])
        except ValueError as error:  # the word cannot be a path
            raise SettingsError(f"{error}. Give a TOML settings file, or key=value") from error
        words = words[1:]
    for word in words:
        if "=" not in word:
            raise SettingsError(
                f"{shown_name(word)}: not key=value. Write a setting as in batch_size=8; a settings file comes before "
                "all settings"
            )
    return file, words


def command_settings(kind: type[S], words: list[str] | None, show_example: bool = False) -> S:
    """Returns the settings of a command. With `--example`, prints them as a TOML file and exits."""
    if show_example:
        typer.echo(example(kind), nl=False)
        raise typer.Exit
    return load_settings(kind, *file_and_settings(words or []))


def _fields(kind: type[Settings], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yields the dotted key and the field of every setting."""
    for name, field in kind.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, Settings):
            yield from _fields(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def settings_by_table(kind: type[Settings]) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """Returns each table's title and rows (key, default, meaning). The first table has the required settings."""
    required, tables = [], dict[str, list[tuple[str, str, str]]]()
    for key, field in _fields(kind):
        meaning = " ".join((field.description or "").split())
        if field.is_required():
            required.append((key, "", meaning))
            continue
        table = key.rpartition(".")[0]
        tables.setdefault(table, []).append((key, _default(field), meaning))

    named = [("Required settings", required)] if required else []
    for table, rows in tables.items():
        title = f"Settings, {table}" if table else "Settings"
        named.append((title, rows))
    return named


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if value is None:
        return "–"
    if isinstance(value, tuple | frozenset):
        value = list(value)
    return json.dumps(value, ensure_ascii=False, default=str)
