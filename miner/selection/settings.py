"""The settings of a selection, and what all that reads scores has in common: one TOML file each."""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from miner.settings import as_tuple, check_one_scale
from unijudge.settings import Settings
from unijudge.storage.locations import Location

Preset = Literal["unime-v2", "paper", "topk", "random", "cyclic"]
Beta = Annotated[float, Field(ge=0, le=1)]
Ladder = Annotated[tuple[Beta, ...], Field(min_length=1)]
Margins = Annotated[Ladder, BeforeValidator(lambda value: (value,) if isinstance(value, int | float) else value)]
Rungs = Beta | Ladder


Folders = Annotated[tuple[Location, ...], BeforeValidator(as_tuple), Field(min_length=1, max_length=2)]
Files = Annotated[tuple[Location, ...], BeforeValidator(as_tuple), Field(max_length=2)]


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
    num_negatives: int = Field(10, gt=0)
    """Negatives in a row."""
    suspect_below: float = Field(0.5, ge=0, le=1)
    """A positive with a lower score is suspect."""
    suspect_action: Literal["keep", "leave_out", "down_weight"] = "keep"
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
