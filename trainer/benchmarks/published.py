"""The published numbers of published.toml. A result table shows them separately and never averages them."""

import tomllib
from functools import cache
from importlib.resources import files

from pydantic import BaseModel, ConfigDict, model_validator


class PublishedTable(BaseModel):
    """A table of a paper."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    columns: tuple[str, ...]
    """The names of subsets or of averages."""
    notes: tuple[str, ...]
    class_means: frozenset[str] = frozenset()
    """The rows whose overall number is another kind of average than in this project."""
    rows: dict[str, tuple[float, ...]]
    """System → numbers in per cent, in the order of the columns."""

    @model_validator(mode="after")
    def _whole(self) -> "PublishedTable":
        if any(
            len(row) != len(self.columns) for row in self.rows.values()
        ) or not self.class_means <= set(self.rows):
            raise ValueError(
                f"{self.title}: a row has more or fewer numbers than columns, or class_means names an unknown row. "
                "Correct published.toml"
            )
        return self


class Published(BaseModel):
    """All published tables and their source."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    tables: tuple[PublishedTable, ...]


@cache
def published() -> Published:
    """Reads published.toml."""
    text = files("trainer.benchmarks").joinpath("published.toml").read_text(encoding="utf-8")
    return Published.model_validate(tomllib.loads(text))
