"""The settings of scoring, of selection and of its page: one TOML file each, `--example` prints it."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from unijudge.settings import Settings


class ScoreSettings(Settings):
    """One scoring job."""

    corpus: Path
    """The corpus folder (`mine import`)."""
    vectors: Path
    """Its embeddings (`train embed`)."""
    out: Path
    """The folder of score shards. Its plan never changes: another k or pool needs another folder."""
    service: str = "http://127.0.0.1:8000"
    """Where the judge service listens."""
    key_file: Path | None = None
    """A file that holds the service's bearer key, where it wants one."""
    k: int = Field(50, gt=0)
    """Candidates for each query: the most similar ones below the positive's own similarity."""
    pool: Literal["global", "subset"] = "global"
    """Candidates come from the whole corpus, or from the query's own subset."""
    queries_in_shard: int = Field(256, gt=0)
    """Queries in one file: what is scored again, at most, after a kill."""
    in_flight: int = Field(16, gt=0)
    """Queries that wait for the service at once."""
    request_timeout_s: float = Field(300, gt=0)
    """How long one request may take, in seconds."""
    retry_for_s: float = Field(600, gt=0)
    """How long to go on trying while the service is busy or away, in seconds."""
    max_error_share: float = Field(0.05, ge=0, le=1)
    """Stop, before writing, at a shard with more pairs without a verdict than this share."""
    min_mass: float = Field(0.5, ge=0, le=1)
    """Stop, before writing, at a shard in which Yes and No together have a smaller mean probability than this."""


Preset = Literal["unime-v2", "paper", "topk", "random", "cyclic"]


class Selection(Settings):
    """How hard negatives are chosen, and from which scores; free to repeat, nothing is judged again."""

    scores: Path
    """The folder of score shards (`mine score`)."""
    corpus: Path
    """The corpus that they belong to."""
    preset: Preset = "unime-v2"
    """`unime-v2`: as the released data look. `paper`: as the paper says. Without a judge, for comparison: `topk` (most
    similar), `random` (from the whole pool), `cyclic` (the stride alone)."""
    betas: Annotated[tuple[Annotated[float, Field(ge=0, le=1)], ...], Field(min_length=1)] | None = None
    """Margins under the positive's score, tried in turn until a candidate survives; default: the preset's."""
    stride: int = Field(5, gt=0)
    """Step of the walk through the survivors, in order of similarity."""
    stored: int = Field(10, gt=0)
    """Negatives in a row."""
    suspect_below: float = Field(0.5, ge=0, le=1)
    """A positive with a lower score is counted as suspect."""
    log_odds_divisor: float = Field(1.0, gt=0)
    """Divides every log-odds before the score is taken. 1.05 puts a bfloat16 judge's scores on the grid of UniME-V2's
    released ones, which went through a repetition penalty."""
    seed: int = 0
    """Of `random`, of the paper's fallback, and of the rows that a page shows."""
    partial: bool = False
    """Take a score folder of which shards are missing."""


class SelectSettings(Selection):
    """One selection of hard negatives."""

    vectors: Path
    """Its embeddings, for the diversity of a row's negatives."""
    out: Path
    """The folder of training rows; must not exist yet."""


class InspectSettings(Selection):
    """One page on which a person sees what a selection makes of the scores."""

    out: Path
    """The HTML file; an older one is replaced."""
    rows: int = Field(1000, gt=0)
    """Rows that it shows, at most; of more, a sample that prefers those of interest."""
    max_mb: float = Field(20, ge=1)
    """Its largest size, in megabytes of 10⁶ bytes. Pictures that do not fit give way, those of the plainest candidates
    first."""

    @field_validator("preset")
    @classmethod
    def _of_candidates(cls, preset: Preset) -> Preset:
        if preset == "random":
            raise ValueError(
                "random draws from the whole pool, not from the candidates that a page shows; give another"
            )
        return preset
