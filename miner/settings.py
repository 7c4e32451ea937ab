"""The settings of scoring and of selection: one TOML file each, `--example` prints it."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from unijudge.files import Location
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
Beta = Annotated[float, Field(ge=0, le=1)]
Ladder = Annotated[tuple[Beta, ...], Field(min_length=1)]
Rungs = Beta | Ladder


def _listed(value: Any) -> Any:
    """One path alone is a list of one."""
    return (value,) if isinstance(value, str | Path) else value


Folders = Annotated[tuple[Location, ...], BeforeValidator(_listed), Field(min_length=1, max_length=2)]
Files = Annotated[tuple[Location, ...], BeforeValidator(_listed), Field(max_length=2)]


class ScoreFolders(Settings):
    """Scores, and how they are read."""

    scores: Folders
    """The folder of score shards (`mine score`); two make a cascade: a small judge's, then a large one's inside the
    small one's band."""
    calibration: Files = ()
    """Files of `mine calibrate`, at most one for each judge: they make scores into chances."""
    log_odds_divisor: float = Field(1.0, gt=0)
    """Divides every log-odds before the score is taken. 1.05 puts a bfloat16 judge's scores on the grid of UniME-V2's
    released ones, which went through a repetition penalty."""
    overrides: Location | None = None
    """What a person decided against the judge (exported by the page of `mine inspect`)."""
    stored: int = Field(10, gt=0)
    """Negatives in a row."""
    suspect_below: float = Field(0.5, ge=0, le=1)
    """A positive with a lower score is suspect."""
    suspects: Literal["keep", "leave_out", "down_weight"] = "keep"
    """What becomes of rows with a suspect positive: `keep` flags them; `leave_out`; `down_weight`: the row's weight in
    the loss is the positive's score over `suspect_below`."""
    seed: int = 0
    """Of `random`, of the paper's fallback, and of samples."""
    partial: bool = False
    """Take a score folder of which shards are missing."""

    @model_validator(mode="after")
    def _one_for_each(self) -> Self:
        if len(self.calibration) > len(self.scores):
            raise ValueError(f"calibration: {len(self.calibration)} files for {len(self.scores)} folders of scores")
        return self


class Selection(ScoreFolders):
    """How hard negatives are chosen from scores; free to repeat, nothing is judged again."""

    preset: Preset = "unime-v2"
    """`unime-v2`: as the released data look. `paper`: as the paper says. Without a judge, for comparison: `topk` (most
    similar), `random` (from the whole pool), `cyclic` (the stride alone)."""
    betas: Ladder | None = None
    """Margins under the positive's score, tried in turn until a candidate survives; default: the preset's."""
    k: int | None = Field(None, gt=0)
    """Only so many candidates, the most similar ones; default: all that were scored."""
    stride: int = Field(5, gt=0)
    """Step of the walk through the survivors, in order of similarity."""
    extra_positives: bool = False
    """Offer candidates that score at least as high as the positive as further positives of the row."""


class SelectSettings(Selection):
    """One selection of hard negatives."""

    corpus: Location
    """The corpus that the scores belong to."""
    vectors: Location | None = None
    """Its embeddings, for the diversity of a row's negatives; without them it is not measured."""
    out: Location
    """The folder of training rows; must not exist yet."""
    compare: Location | None = None
    """Another selection's folder: how much of it this one reproduces is counted."""


class SweepSettings(ScoreFolders):
    """Many selections side by side, counted and not written."""

    corpus: Location
    """The corpus that the scores belong to."""
    vectors: Location | None = None
    """Its embeddings, for the diversity of a row's negatives; without them it is not measured."""
    presets: Annotated[tuple[Literal["unime-v2", "paper", "topk", "cyclic"], ...], Field(min_length=1)] = (
        "unime-v2",
        "topk",
    )
    """As `preset` of a selection; `random` draws items that nobody judged, so there is nothing to count."""
    betas: Annotated[tuple[Rungs, ...], Field(min_length=1)] = (0.01, 0.05, 0.1, 0.2, 0.3, (0.1, 0.01, 0.001))
    """Margins, each alone (0.1) or a ladder ([0.1, 0.01]); of the presets that ask the judge."""
    ks: Annotated[tuple[Annotated[int, Field(gt=0)] | Literal["all"], ...], Field(min_length=1)] = ("all",)
    """How many candidates, the most similar ones: `"all"`, or a number."""
    strides: Annotated[tuple[Annotated[int, Field(gt=0)], ...], Field(min_length=1)] = (5,)
    """Steps of the walk."""
    max_false_negatives: float = Field(0.05, ge=0, le=1)
    """The recommended β leaves at most this share of expected false negatives among the chosen."""
    max_short: float = Field(0.2, ge=0, le=1)
    """… and at most this share of rows with fewer survivors than `stored`."""
    out: Location | None = None
    """A JSON file for all of it."""


class CalibrateSettings(Settings):
    """One fit of a judge's scores to labelled pairs."""

    scores: Location
    """The folder of score shards that holds the pairs."""
    labels: Location
    """Labelled pairs: the overrides of a page (.json), or rows of query_id, item_id, match (.jsonl, .parquet, .csv)."""
    out: Location
    """The file to write; `mine select` reads it as `calibration`."""
    kind: Literal["temperature", "platt"] = "platt"
    """`temperature` fits a slope; `platt` a slope and an intercept."""
    min_labels: int = Field(20, ge=4)
    """Fewer labelled pairs with a verdict are refused."""
    folds: int = Field(5, ge=2)
    """Parts of the cross-validation by which the measures are made."""
    seed: int = 0
    """Which pairs make which part."""
    partial: bool = False
    """Take a score folder of which shards are missing."""
