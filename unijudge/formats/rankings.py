"""An evaluation: rankings.parquet (each query's best items and the rank of its positive), and metrics.json, the last.

`train evaluate` writes an evaluation, and so does `train rerank`, in a judge's order.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from unijudge.errors import DataError
from unijudge.formats.tables import Table
from unijudge.provenance import Provenance
from unijudge.storage.files import file_sha256, read_json
from unijudge.storage.outputs import OR_ELSE

ANSWERS = "answers"
"""The folder of a judge's answers about an evaluation."""
EVALUATION_FILES = {"rankings.parquet", "metrics.json", "vectors", ANSWERS}
"""The names that an evaluation's folder may hold. A benchmark stores a set's vectors there."""


@dataclass(frozen=True)
class Ranking:
    """A query's final ranking, cut to its best items."""

    query_id: str
    subset: str
    gold_rank: int
    """The rank of the positive, from 1. Ties count against the positive."""
    item_ids: list[str]
    """The best items, best first."""
    similarities: list[float]
    positive_ids: list[str]
    """The items that counted as right: the positives of the row, and other right items among `item_ids`."""
    candidates: int
    """The number of ranked items, including items that are not written."""
    query_key: bytes
    """The hash of the query's content, since the same ids occur in many corpora."""
    log_odds: list[float | None] | None = None
    """The judge's log-odds of the first items after pairwise judging; None for an item without a verdict."""
    list_logprobs: list[float] | None = None
    """Ln P(number) of the first items, after listwise judging."""


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
    """The common fields of metrics.json. Each kind of evaluation adds more fields."""

    model_config = ConfigDict(extra="allow")

    corpus: str
    subsets: dict[str, dict[str, float]]
    """Subset → measure → value. The measure `queries` is the number of queries."""
    inputs: dict[str, str] = {}
    """Name → fingerprint of each evaluated input."""
    rankings_sha256: str | None = None
    """The sha256 of rankings.parquet."""
    made: Provenance | None = None

    def check_same(self, path: Path, wanted: "Evaluation", ignored: Collection[str] = ()) -> None:
        """Refuses to replace an evaluation of other inputs, or with other settings.

        Args:
            path: The path of the existing evaluation.
            wanted: The new evaluation, as far as it is known before the work.
            ignored: Settings that do not change the result.

        Raises:
            DataError: The evaluations differ; the message names the differences.
        """
        theirs = _settings_of(self.made)
        names = []
        for name, value in _settings_of(wanted.made).items():
            if name not in ignored and theirs.get(name) != value:
                names.append(name)
        for name, digest in wanted.inputs.items():
            if self.inputs.get(name) != digest:
                names.append(name)
        if names:
            raise DataError(
                f"{path}: exists already, and differs in {', '.join(dict.fromkeys(names))}. {OR_ELSE}"
            )

    def check_rankings(self, path: Path) -> None:
        """Refuses rankings that do not belong to this evaluation.

        Raises:
            DataError: The rankings are missing or changed.
        """
        if self.rankings_sha256 != file_sha256(path):
            raise DataError(f"{path}: changed since it was written. Evaluate again")


E = TypeVar("E", bound=Evaluation)


def write_rankings(path: Path, rankings: Iterable[Ranking]) -> int:
    """Streams rankings into a file, and returns their number."""
    return RANKINGS.write(path, (asdict(ranking) for ranking in rankings))


def read_rankings(path: Path) -> Iterator[Ranking]:
    """Yields the rankings of a file.

    Raises:
        DataError: The file is missing, damaged or foreign.
    """
    for row in RANKINGS.read(path):
        yield Ranking(**row)


def _settings_of(made: Provenance | None) -> Mapping[str, Any]:
    if made is None:
        return {}
    return made.settings or {}


def read_evaluation(folder: Path, kind: type[E]) -> tuple[E, list[Ranking]]:
    """Returns the metrics of an evaluation, and the rankings behind them.

    Args:
        folder: The folder of the evaluation.
        kind: The class of its metrics.json.

    Raises:
        DataError: A file is missing, damaged or foreign, or the rankings do not belong to the metrics.
    """
    evaluation = read_json(folder / "metrics.json", kind)
    path = folder / "rankings.parquet"
    evaluation.check_rankings(path)
    rankings = list(read_rankings(path))
    return evaluation, rankings
