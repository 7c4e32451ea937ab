"""The common parts of dataset cards and model cards: Markdown that is made only from manifests."""

import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pydantic import BaseModel

from unijudge.errors import SettingsError
from unijudge.provenance import Provenance
from unijudge.shown import shown


def table(head: Sequence[object], rows: Iterable[Sequence[object]], *, padded: bool = False) -> str:
    """Returns a Markdown table. The text of a cell is escaped.

    Args:
        head: The names of the columns.
        rows: The cells.
        padded: Whether cells are padded, so that the columns are aligned in the plain text too.

    Example:
        >>> print(table(["name", "value"], [["rank", 16]]))
        | name | value |
        |---|---|
        | rank | 16 |
    """
    cells = [list(map(_cell, row)) for row in [head, *rows]]
    columns = list(zip(*cells, strict=True))
    widths = [0] * len(columns)
    if padded:
        widths = [max(map(len, column)) for column in columns]

    first, *others = [_line(map(_with_spaces, row, widths)) for row in cells]
    rule = _line("-" * max(width + 2, 3) for width in widths)
    return "\n".join([first, rule, *others])


def _line(cells: Iterable[str]) -> str:
    return "|" + "|".join(cells) + "|"


def _with_spaces(cell: str, width: int) -> str:
    return f" {cell:<{width}} " if cell or width else " "


def facts(values: BaseModel | Mapping[str, Any]) -> str:
    """Returns a table with a row for each name and its value."""
    return table(
        ["", ""], (values.model_dump() if isinstance(values, BaseModel) else values).items()
    )


def rendered(template: Path, **values: object) -> str:
    """Renders a Jinja template, without whitespace at the end. A name in the template without a value is an error.

    Three filters quote a value for a language: `json`, `python`, and `shell` (a single word).
    """
    environment = Environment(
        loader=FileSystemLoader(template.parent), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        autoescape=False,  # noqa: S701  Markdown, not HTML
    )  # fmt: skip
    environment.filters["json"] = partial(json.dumps, ensure_ascii=False)
    environment.filters["python"] = repr
    environment.filters["shell"] = shlex.quote
    return environment.get_template(template.name).render(**values).rstrip()


def check_license(name: str | None) -> None:
    """Refuses a licence that the hub would refuse only at the end of an upload.

    Raises:
        SettingsError: The name does not have the form of the hub's licence names.
    """
    if name is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", name):
        raise SettingsError(
            f"--license {shown(name)}: not a short name of the hub, which has lower-case letters and no spaces. Give "
            "such a name (apache-2.0, cc-by-4.0), or `other`"
        )


def made_by(made: Provenance) -> str:
    """Returns the command, the version and the time of an output."""
    return f"`{_cell(made.command)}`, unijudge {made.unijudge}, {made.created}"


def _cell(value: object) -> str:
    return " ".join(str(value).replace("|", "\\|").split())
