"""The names of the files of `judge bench`, and the content of bench.json."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from judge_service.bench.figures import Figures
from judge_service.bench.injection import Injections
from unijudge.judging.verdicts import JudgeIdentity
from unijudge.provenance import Provenance

RESULT, PAGE, SCORES = "bench.json", "bench.html", "scores.parquet"


class Bench(BaseModel):
    """The measurement of a judge on labelled pairs."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    version: Literal[1] = 1
    service: str
    identity: JudgeIdentity
    inputs: dict[str, str]
    """The path of each file of pairs → its SHA-256."""
    interval: str
    """The method of the 95 % intervals of ROC-AUC, in words."""
    seed: int
    figures: list[Figures]
    """The figures of each group of pairs. The group of all pairs comes first."""
    injections: Injections | None
    """The effect of texts inside candidates. Null if not requested, or if no negative got a No."""
    made: Provenance
