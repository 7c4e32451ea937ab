"""What the cards of datasets and of models have in common: Markdown made from manifests, never from memory."""

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


def table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """A table; what a cell says cannot leave it.

    Example:
        >>> print(table(["name", "value"], [["rank", 16]]))
        | name | value |
        |---|---|
        | rank | 16 |
    """
    lines = ["| " + " | ".join(map(_cell, row)) + " |" if any(row) else "|" + " |" * len(row) for row in [head, *rows]]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])


def facts(values: BaseModel | Mapping[str, Any]) -> str:
    """Names and values, a row for each."""
    return table(["", ""], (values.model_dump() if isinstance(values, BaseModel) else values).items())


def rendered(template: Path, **values: object) -> str:
    """Text from a template of Jinja, without the blank at its end; a name that it uses and is not given is an error.

    Three filters write a value as one language reads it: `json`, `python`, and `shell` a word.
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
    """Refuses a licence that the hub would refuse, at the end of an upload.

    Raises:
        SettingsError: It is none of the hub's short forms.
    """
    if name is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", name):
        raise SettingsError(
            f"--license {shown(name)}: not the hub's short form, which has small letters and no blanks, such as "
            "apache-2.0 or cc-by-4.0; give that one, or other"
        )


def made_by(made: Provenance) -> str:
    """The command that made something, the version and the time."""
    return f"`{_cell(made.command)}`, unijudge {made.unijudge}, {made.created}"


def _cell(value: object) -> str:
    return " ".join(str(value).replace("|", "\\|").split())
