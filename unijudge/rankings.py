"""An evaluation: rankings.parquet (the best items of each query, and where its positive stands), metrics.json last.

Written by `train evaluate` and, in a judge's order, by `train rerank`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from unijudge.provenance import Provenance
from unijudge.tables import Table

ANSWERS = "answers"
"""The folder of what a judge answered about an evaluation."""
EVALUATION_FILES = {"rankings.parquet", "metrics.json", "vectors", ANSWERS}
"""What may lie in an evaluation's folder; a benchmark has a set's vectors there."""


@dataclass(frozen=True)
class Ranking:
    """One query's final ranking, cut to its best items."""

    query_id: str
    subset: str
    gold_rank: int
    """From 1; ties count against the positive."""
    item_ids: list[str]
    """Best first."""
    similarities: list[float]
    log_odds: list[float | None] | None = None
    """The judge's, of the first items, where a judge was asked about each; None for one without a verdict."""
    list_logprobs: list[float] | None = None
    """Ln P(number) of the first items, where a judge was asked about them as one list."""


RANKINGS = Table(
    "rankings",
    3,
    pa.schema(
        [
            ("query_id", pa.string()),
            ("subset", pa.string()),
            ("gold_rank", pa.int32()),
            ("item_ids", pa.list_(pa.string())),
            ("similarities", pa.list_(pa.float32())),
            ("log_odds", pa.list_(pa.float32())),
            ("list_logprobs", pa.list_(pa.float32())),
        ]
    ),
)


class Evaluation(BaseModel):
    """metrics.json, as far as every evaluation has it; each adds what is its own."""

    model_config = ConfigDict(extra="allow")

    corpus: str
    subsets: dict[str, dict[str, float]]
    """Subset → measure → value; `queries` is one of them."""
    inputs: dict[str, str] = {}
    """Name → fingerprint of what was evaluated."""
    rankings_sha256: str | None = None
    """Of rankings.parquet."""
    made: Provenance | None = None


def write_rankings(path: Path, rankings: Iterable[Ranking]) -> int:
    """Streams rankings into one file; returns how many."""
    return RANKINGS.write(path, (asdict(ranking) for ranking in rankings))


def read_rankings(path: Path) -> Iterator[Ranking]:
    """Yields them back.

    Raises:
        DataError: The file is missing, torn or foreign.
    """
    for row in RANKINGS.read(path):
        yield Ranking(**row)
