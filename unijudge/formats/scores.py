"""A folder of judge scores: manifest.json first, then part-00000.parquet …, with a row for each judged query.

`mine score` writes the folder, and `mine select` reads it. It stores measurements: two log-probabilities and a
similarity. Selection applies thresholds and counts, so they can change without new judging.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from unijudge.errors import DataError
from unijudge.formats.parts import PartManifest, Parts, part_path
from unijudge.formats.tables import Table
from unijudge.judging.verdicts import Cost, JudgeIdentity, total_cost
from unijudge.provenance import Provenance
from unijudge.storage.files import read_json


@dataclass(frozen=True)
class Judged:
    """The measurements of a candidate for a query."""

    item_id: str
    item_key: bytes
    """The 16-byte content hash, `unijudge.content.content_key`."""
    rank: int | None
    """The rank among the candidates by similarity, from 0; None for a positive, or if the rank is unknown."""
    similarity: float | None
    """The cosine similarity of query and item, −1 … 1; None for published scores without similarities."""
    yes_logprob: float | None = None
    no_logprob: float | None = None
    argmax_is_label: bool | None = None
    """Whether the judge's likeliest token was Yes or No."""
    error: str | None = None
    """`code: message` if the pair has no verdict."""

    @property
    def log_odds(self) -> float | None:
        """Returns ln [P(Yes) / P(No)], or None without a verdict."""
        if self.yes_logprob is None or self.no_logprob is None:
            return None
        return self.yes_logprob - self.no_logprob


@dataclass(frozen=True)
class JudgedQuery:
    """A query with all of its judged candidates. The miner writes only complete queries, and selection reads them."""

    query_id: str
    subset: str
    query_key: bytes
    positives: list[Judged]
    candidates: list[Judged]
    """The candidates by similarity, best first. If similarities are unknown, they are in their published order."""


JUDGED = [
    ("item_id", pa.string()),
    ("item_key", pa.binary(16)),
    ("rank", pa.int32()),
    ("similarity", pa.float32()),
    ("yes_logprob", pa.float32()),
    ("no_logprob", pa.float32()),
    ("argmax_is_label", pa.bool_()),
    ("error", pa.string()),
]
UNKNOWN = {"rank", "similarity", "yes_logprob", "no_logprob", "argmax_is_label", "error"}
"""The columns that may be null in a judged pair."""
SCORES = Table(
    "scores",
    3,
    pa.schema(
        [
            ("query_id", pa.string()),
            ("subset", pa.string()),
            ("query_key", pa.binary(16)),
            ("positives", pa.list_(pa.struct(JUDGED))),
            ("candidates", pa.list_(pa.struct(JUDGED))),
        ]
    ),
    UNKNOWN,
)


class ScoreManifest(PartManifest):
    """manifest.json: the plan of the folder, and the judge."""

    version: Literal[4] = 4
    corpus: str
    """The fingerprint of the corpus."""
    vectors: str | None
    """The sha256 of vectors.json; None if the candidates did not come from a search."""
    queries: int
    shard_size: int
    k: int
    pool: Literal["global", "subset", "modality"]
    retrieval: dict[str, Any] = Field(default_factory=dict)
    """The other settings of the search."""
    band: dict[str, Any] | None = None
    """The band in a cascade's second step: the first step's folder (`scores`, the fingerprint of its manifest), the
    cut, the width, and the slope and intercept of the first judge's scores."""
    judge: JudgeIdentity
    made: Provenance | None = None

    @property
    def parts(self) -> Parts:
        """Returns the shards, by the corpus rows of their queries."""
        return Parts(self.queries, self.shard_size)


class ShardCounts(BaseModel):
    """The counts of the pairs of one or more shards, and the cost of their answers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pairs: int = 0
    asked: int = 0
    """Number of pairs that the judge was asked about. The verdicts of all other pairs were reused and cost nothing."""
    errors: int = 0
    """Number of pairs without a verdict."""
    cost: Cost | None = None
    """The cost of the answers; None if the judge does not count."""

    @property
    def reused(self) -> int:
        """Returns the number of pairs whose verdict was known."""
        return self.pairs - self.asked

    def __add__(self, other: "ShardCounts") -> "ShardCounts":
        return ShardCounts(
            pairs=self.pairs + other.pairs,
            asked=self.asked + other.asked,
            errors=self.errors + other.errors,
            cost=total_cost([self.cost, other.cost]),
        )


class ScoreTotals(BaseModel):
    """totals.json: the counts of all shards that a folder has. Each run writes this file again at its end.

    Answers that a crash lost before their shard was written are not included.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    shards: int
    """Number of written shards."""
    shards_counted: int
    """Number of written shards with counts. Shards of earlier versions of unijudge have no counts."""
    counts: ShardCounts


def write_shard(
    folder: Path,
    manifest: ScoreManifest,
    shard: int,
    rows: list[JudgedQuery],
    counts: ShardCounts | None = None,
    *,
    rivals: bool = False,
) -> None:
    """Publishes a complete shard, in small row groups, so that a query can be read alone.

    Args:
        folder: The folder of scores.
        manifest: The plan of the folder.
        shard: The number of the shard.
        rows: The judged queries, in the order of the corpus.
        counts: The counts that are stored beside the rows.
        rivals: Whether several processes may write the same shard at the same time.
    """
    stream = map(_plain, rows)
    SCORES.write(
        part_path(folder, shard),
        stream,
        rows_in_group=64,
        stamp=manifest.stamp(shard),
        note=counts.model_dump_json() if counts else "",
        rivals=rivals,
    )


def _plain(row: JudgedQuery) -> dict[str, Any]:
    """Converts a row for its table."""
    positives = [vars(judged) for judged in row.positives]
    candidates = [vars(judged) for judged in row.candidates]
    return vars(row) | {"positives": positives, "candidates": candidates}


def read_shard(folder: Path, manifest: ScoreManifest, shard: int) -> Iterator[JudgedQuery]:
    """Yields the rows of a shard.

    Raises:
        DataError: The shard is missing, damaged, foreign, or was written for another plan.
    """
    for row in SCORES.read(part_path(folder, shard), manifest.stamp(shard)):
        row["positives"] = [Judged(**judged) for judged in row["positives"]]
        row["candidates"] = [Judged(**judged) for judged in row["candidates"]]
        yield JudgedQuery(**row)


def counts_of(folder: Path, manifest: ScoreManifest, shard: int) -> ShardCounts | None:
    """Returns the counts of a shard. None if another version of unijudge wrote the shard.

    Raises:
        DataError: The shard is missing, damaged, foreign, or was written for another plan.
    """
    try:
        return ShardCounts.model_validate_json(
            SCORES.note(part_path(folder, shard), manifest.stamp(shard))
        )
    except ValidationError:
        return None


def present_shards(folder: Path, manifest: ScoreManifest, *, partial: bool = False) -> list[int]:
    """Returns the existing shards of a folder, in order.

    Raises:
        DataError: Shards are missing and `partial` is false.
    """
    missing = manifest.parts.missing(folder)
    if missing and not partial:
        raise DataError(
            f"{folder}: {len(missing)} of {len(manifest.parts)} shards are missing (first: {missing[0]}). Run the same "
            "`mine score` again to finish it, or set partial=true to use the existing shards"
        )
    return sorted(set(range(len(manifest.parts))) - set(missing))


def read_scores(folder: Path, *, partial: bool = False) -> Iterator[JudgedQuery]:
    """Yields every judged query of a folder.

    Args:
        folder: A folder that `mine score` wrote.
        partial: Whether to accept a folder with missing shards.

    Raises:
        DataError: Shards are missing and `partial` is false, or a shard is damaged or foreign.
    """
    manifest = read_json(folder / "manifest.json", ScoreManifest)
    for shard in present_shards(folder, manifest, partial=partial):
        yield from read_shard(folder, manifest, shard)
