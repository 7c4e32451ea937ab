"""An evaluation: rankings.parquet (the best items of each query, and where its positive stands), metrics.json last.

Written by `train evaluate` and, in a judge's order, by `train rerank`.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from unijudge.errors import DataError
from unijudge.formats.tables import Table
from unijudge.provenance import Provenance
from unijudge.storage.files import file_sha256, read_json
from unijudge.storage.outputs import OR_ELSE

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
    positive_ids: list[str]
    """What was counted as right: the row's own positives, and of others those among `item_ids`."""
    candidates: int
    """How many items were ranked, written or not."""
    query_key: bytes
    """Hash of the query's content: ids are the same in many corpora."""
    log_odds: list[float | None] | None = None
    """The judge's, of the first items, where a judge was asked about each; None for one without a verdict."""
    list_logprobs: list[float] | None = None
    """Ln P(number) of the first items, where a judge was asked about them as one list."""


RANKINGS = Table(
    "rankings",
    5,
    pa.schema(
        [
            ("query_id", pa.string()),
            ("subset", pa.string()),
            ("gold_rank", pa.int32()),
            ("item_ids", pa.list_(pa.string())),
            ("similarities", pa.list_(pa.float32())),
            ("positive_ids", pa.list_(pa.string())),
            ("candidates", pa.int32()),
            ("query_key", pa.binary(16)),
            ("log_odds", pa.list_(pa.float32())),
            ("list_logprobs", pa.list_(pa.float32())),
        ]
    ),
    ("log_odds", "list_logprobs"),
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

    def check_same(self, path: Path, wanted: "Evaluation", ignored: Collection[str] = ()) -> None:
        """Refuses to replace an evaluation of something else, or by other settings.

        Args:
            path: Of the one that is there.
            wanted: The one to be written, as far as it is known.
            ignored: Settings that do not change what comes of it.

        Raises:
            DataError: They differ: it is said in what.
        """
        theirs, ours = (dict(one.made.settings or {}) if one.made else {} for one in (self, wanted))
        names = [name for name in ours if name not in ignored and theirs.get(name) != ours[name]]
        names += [name for name, digest in wanted.inputs.items() if self.inputs.get(name) != digest]
        if names:
            raise DataError(f"{path}: is there already, and differs in {', '.join(dict.fromkeys(names))}; {OR_ELSE}")

    def check_rankings(self, path: Path) -> None:
        """Refuses rankings that are not those of this evaluation.

        Raises:
            DataError: They are missing, or others.
        """
        if self.rankings_sha256 != file_sha256(path):
            raise DataError(f"{path}: changed since it was written; evaluate again")


E = TypeVar("E", bound=Evaluation)


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


def read_evaluation(folder: Path, kind: type[E]) -> tuple[E, list[Ranking]]:
    """What was measured, and the rankings that it was measured on.

    Args:
        folder: Of the evaluation.
        kind: What its metrics.json holds.

    Raises:
        DataError: A file is missing, torn or foreign, or the rankings are others than those that were measured.
    """
    evaluation, path = read_json(folder / "metrics.json", kind), folder / "rankings.parquet"
    evaluation.check_rankings(path)
    return evaluation, list(read_rankings(path))
