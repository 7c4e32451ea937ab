"""The files of `judge bench`, and what bench.json holds."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from judge_service.bench.figures import Figures
from judge_service.bench.injection import Injections
from unijudge.judging.verdicts import JudgeIdentity
from unijudge.provenance import Provenance

RESULT, PAGE, SCORES = "bench.json", "bench.html", "scores.parquet"


class Bench(BaseModel):
    """How good a judge is on some labelled pairs."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    version: Literal[1] = 1
    service: str
    identity: JudgeIdentity
    inputs: dict[str, str]
    """The files of pairs, each with its SHA-256."""
    interval: str
    """How the 95 % intervals of areas are made."""
    seed: int
    figures: list[Figures]
    """Of all pairs first."""
    injections: Injections | None
    """Null where none were asked for, or no pair that does not match got a No."""
    made: Provenance
