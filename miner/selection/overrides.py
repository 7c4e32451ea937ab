"""Reads a file of overrides: decisions of a person against the judge. The page of `mine inspect` exports the file.

This module reads and checks the file. It does not apply the overrides.
"""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, model_validator

from unijudge.errors import DataError
from unijudge.storage.files import read_json


class Override(BaseModel):
    """One decision about an item of a query, or about the whole row."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    query_id: str
    item_id: str | None
    """The id of the item, or None if the decision is about the whole row."""
    verdict: Literal["match", "negative", "drop"]
    """The decision. `match`: the item answers the query, whatever the judge's score is. `negative`: the item does not
    answer the query. `drop`: the row is left out."""
    note: str = ""
    """A comment by the person."""

    @model_validator(mode="after")
    def _fits(self) -> "Override":
        if (self.verdict == "drop") != (self.item_id is None):
            raise ValueError(
                "drop applies to a whole row and match or negative to an item. Set item_id to null for drop, and to "
                "an id for match or negative"
            )
        return self


class Overrides(BaseModel):
    """The file of overrides. The page of `mine inspect` writes this file, and the selection reads it."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="file of overrides")

    version: Literal[1] = 1
    corpus: str
    """The fingerprint of the corpus whose rows the person inspected."""
    overrides: list[Override]


def read_overrides(path: Path, corpus_fingerprint: str) -> Overrides:
    """Reads a file of overrides.

    Args:
        path: The file that the page exported.
        corpus_fingerprint: The fingerprint of the corpus that the file must belong to.

    Raises:
        DataError: The file does not exist, is no file of overrides, belongs to a different corpus, or contradicts
            itself about an item.
    """
    read = read_json(path, Overrides)
    if read.corpus != corpus_fingerprint:
        raise DataError(
            f"{path}: was made for corpus {read.corpus[:12]}, not for {corpus_fingerprint[:12]}. Give the file that "
            "this corpus' page exported"
        )
    verdict_of: dict[tuple[str, str | None], str] = {}
    for override in read.overrides:
        earlier = verdict_of.setdefault((override.query_id, override.item_id), override.verdict)
        if earlier != override.verdict:
            raise DataError(
                f"{path}: query {override.query_id!r}, item {override.item_id!r} is both {earlier!r} and "
                f"{override.verdict!r}. Remove one of these two overrides from the file"
            )
    return read
