"""What the cards of datasets and of models have in common: Markdown made from manifests, never from memory."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from unijudge.provenance import Provenance


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


def made_by(made: Provenance) -> str:
    """The command that made something, the version and the time."""
    return f"`{_cell(made.command)}`, unijudge {made.unijudge}, {made.created}"


def _cell(value: object) -> str:
    return " ".join(str(value).replace("|", "\\|").split())
