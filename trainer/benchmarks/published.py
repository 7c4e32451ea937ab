"""The published numbers, as published.toml holds them: shown under ours, and never part of an average of ours."""

import tomllib
from functools import cache
from importlib.resources import files

from pydantic import BaseModel, ConfigDict, model_validator


class PublishedTable(BaseModel):
    """One table of a paper."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    columns: tuple[str, ...]
    """Names of subsets or of averages."""
    notes: tuple[str, ...]
    class_means: frozenset[str] = frozenset()
    """Rows whose overall number is another kind of average than ours."""
    rows: dict[str, tuple[float, ...]]
    """System → per cent, column by column."""

    @model_validator(mode="after")
    def _whole(self) -> "PublishedTable":
        if any(len(row) != len(self.columns) for row in self.rows.values()) or not self.class_means <= set(self.rows):
            raise ValueError(f"{self.title}: a row has not as many numbers as there are columns, or a mark has no row")
        return self


class Published(BaseModel):
    """All of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    tables: tuple[PublishedTable, ...]


@cache
def published() -> Published:
    """Reads published.toml."""
    text = files("trainer.benchmarks").joinpath("published.toml").read_text(encoding="utf-8")
    return Published.model_validate(tomllib.loads(text))
