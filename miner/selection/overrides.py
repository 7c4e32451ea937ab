"""What a person decided against the judge: one JSON file, exported by the page of `mine inspect`.

This reads and checks the file; it does not apply it.
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
    """None where the row as a whole is meant."""
    verdict: Literal["match", "negative", "drop"]
    """`match`: the item answers the query, whatever the judge says; `negative`: it does not; `drop`: the row is left
    out."""
    note: str = ""
    """The person's own words."""

    @model_validator(mode="after")
    def _fits(self) -> "Override":
        if (self.verdict == "drop") != (self.item_id is None):
            raise ValueError("drop is of a whole row, with item_id null; match and negative are of one item_id")
        return self


class Overrides(BaseModel):
    """The file. The page writes it, selection reads it."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="file of overrides")

    version: Literal[1] = 1
    corpus: str
    """Fingerprint of the corpus whose rows were looked at."""
    overrides: list[Override]


def read_overrides(path: Path, corpus_fingerprint: str) -> Overrides:
    """Reads a file of overrides.

    Args:
        path: What the page exported.
        corpus_fingerprint: Of the corpus that it must belong to.

    Raises:
        DataError: No such file, not one of ours, of another corpus, or it says two things about one item.
    """
    read = read_json(path, Overrides)
    if read.corpus != corpus_fingerprint:
        raise DataError(
            f"{path}: was made for corpus {read.corpus[:12]}, not for {corpus_fingerprint[:12]}; give the file that "
            "this corpus' page exported"
        )
    said: dict[tuple[str, str | None], str] = {}
    for override in read.overrides:
        before = said.setdefault((override.query_id, override.item_id), override.verdict)
        if before != override.verdict:
            raise DataError(
                f"{path}: query {override.query_id!r}, item {override.item_id!r} is both {before!r} and "
                f"{override.verdict!r}; leave one of the two in the file"
            )
    return read
