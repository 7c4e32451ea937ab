"""The settings of evaluating and of reranking: one TOML file each, `--example` prints it."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from unijudge.files import Location
from unijudge.settings import Settings


class EvaluateSettings(Settings):
    """One evaluation of a corpus' vectors."""

    corpus: Location
    """The corpus: queries, their positives, and candidates."""
    vectors: Location
    """Its vectors (`train embed`)."""
    out: Location
    """The folder for metrics.json and rankings.parquet."""
    pool: Literal["subset", "global"] = "subset"
    """Queries without a closed list are ranked against their subset's items, or against all."""
    cutoffs: Annotated[tuple[Annotated[int, Field(gt=0)], ...], Field(min_length=1)] = (5, 10)
    """The k of recall@k; nDCG is taken at the last."""
    keep: int = Field(10, gt=0)
    """Items of each ranking to write."""


class RerankSettings(Settings):
    """One reranking of an evaluation's best items."""

    corpus: Location
    """The corpus that was evaluated."""
    rankings: Location
    """The folder of `train evaluate`."""
    out: Location
    """The folder for metrics.json and rankings.parquet."""
    service: str = "http://127.0.0.1:8000"
    """Where the judge service listens; it may serve a judge as it comes, or a trained reranker (its folder merged/)."""
    key_file: Path | None = None
    """A file that holds the service's bearer key, where it wants one."""
    top: int = Field(10, gt=1)
    """Items of each ranking that are judged; the others keep their places after them."""
    in_flight: int = Field(16, gt=0)
    """Queries that wait for the service at once."""
