"""The settings of what is done with scores: selection, sweep, calibration, and the page: one TOML file each."""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from miner.settings import check_one_scale, listed
from unijudge.locations import Location
from unijudge.settings import Settings

Preset = Literal["unime-v2", "paper", "topk", "random", "cyclic"]
Beta = Annotated[float, Field(ge=0, le=1)]
Ladder = Annotated[tuple[Beta, ...], Field(min_length=1)]
Margins = Annotated[Ladder, BeforeValidator(lambda value: (value,) if isinstance(value, int | float) else value)]
Rungs = Beta | Ladder


Folders = Annotated[tuple[Location, ...], BeforeValidator(listed), Field(min_length=1, max_length=2)]
Files = Annotated[tuple[Location, ...], BeforeValidator(listed), Field(max_length=2)]


class ScoreFolders(Settings):
    """Scores, and how they are read."""

    scores: Folders
    """The folder of score shards (`mine score`); two make a cascade: a small judge's, then a large one's inside the
    small one's band."""
    calibration: Files = ()
    """Files of `mine calibrate`, at most one for each judge: they make scores into chances."""
    log_odds_divisor: float = Field(1.0, gt=0)
    """Divides every log-odds before the score is taken. 1.05 puts a bfloat16 judge's scores on the grid of UniME-V2's
    released ones, which went through a repetition penalty. Not with a calibration, which is fitted without it."""
    overrides: Location | None = None
    """What a person decided against the judge: a JSON file that the page of `mine inspect` exports. It holds
    {"version": 1, "corpus": the `corpus` of the scores' manifest.json, "overrides": [{"query_id", "item_id",
    "verdict"}, …]}; a verdict is "match", "negative", or "drop" of a whole row, whose item_id is null."""
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
        check_one_scale(self.log_odds_divisor, calibrated=bool(self.calibration))
        return self


class Selection(ScoreFolders):
    """How hard negatives are chosen from scores; free to repeat, nothing is judged again."""

    preset: Preset = "unime-v2"
    """`unime-v2`: as the released data look. `paper`: as the paper says. Without a judge, for comparison: `topk` (most
    similar), `random` (from the whole pool), `cyclic` (the stride alone)."""
    betas: Margins | None = None
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
    """The folder of training rows."""
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
    """A JSON file for all of it; an older one is replaced, another file is not."""


class CalibrateSettings(Settings):
    """One fit of a judge's scores to labelled pairs."""

    scores: Location
    """The folder of score shards that holds the pairs."""
    labels: Location
    """Labelled pairs: the labels that a page of `mine inspect` exports (.json), or rows of query_id, item_id, match
    (.jsonl, .parquet, .csv). They must be a random sample, not pairs that were picked by what the judge got wrong."""
    out: Location
    """The file to write; `mine select` reads it as `calibration`. An older one is replaced, another file is not."""
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


class InspectSettings(Selection):
    """One page on which a person sees what a selection makes of the scores."""

    corpus: Location
    """The corpus that the scores belong to."""
    out: Location
    """The HTML file; an older page is replaced, another file is not."""
    rows: int = Field(1000, gt=0)
    """Rows that it shows, at most; of more, a sample that prefers those of interest."""
    label: int = Field(100, ge=0)
    """Judged pairs of a random sample that it offers to label, for `mine calibrate`; 0: none."""
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
