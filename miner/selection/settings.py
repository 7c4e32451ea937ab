"""The settings of a selection, and the settings shared by all commands that read scores. Each has one TOML file."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from miner.settings import as_tuple, check_one_scale
from unijudge.settings import Settings
from unijudge.storage.locations import Location


def one_as_tuple(value: Any) -> Any:
    """Turns a single number, or the text of a single choice, into a tuple. Returns any other value unchanged."""
    return (value,) if isinstance(value, int | float | str) else value


Preset = Literal["unime-v2", "paper", "topk", "random", "cyclic"]
Beta = Annotated[float, Field(ge=0, le=1)]
Ladder = Annotated[tuple[Beta, ...], Field(min_length=1)]
Margins = Annotated[Ladder, BeforeValidator(one_as_tuple)]
Rungs = Beta | Ladder
Folders = Annotated[
    tuple[Location, ...], BeforeValidator(as_tuple), Field(min_length=1, max_length=2)
]
Files = Annotated[tuple[Location, ...], BeforeValidator(as_tuple), Field(max_length=2)]


class ScoreFolders(Settings):
    """The folders of scores, and the settings for reading them."""

    scores: Folders
    """The folder of score shards, written by `mine score`. Two folders make a cascade: first a small judge's folder,
    then the folder in which a large judge scored the candidates in the small judge's band."""
    calibration: Files = ()
    """Files from `mine calibrate`, at most one for each judge. They turn scores into probabilities."""
    log_odds_divisor: float = Field(1.0, gt=0)
    """Divisor of every log-odds before it becomes a score. 1.05 puts a bfloat16 judge's scores on the grid of
    UniME-V2's released scores, which were computed with a repetition penalty. Not allowed with a calibration, which is
    fitted to undivided log-odds."""
    overrides: Location | None = None
    """A JSON file of a person's decisions against the judge, exported by the page of `mine inspect`. The file holds
    {"version": 1, "corpus": the `corpus` of the scores' manifest.json, "overrides": [{"query_id", "item_id",
    "verdict"}, …]}. A verdict is "match", "negative", or, for a whole row with item_id null, "drop"."""
    num_negatives: int = Field(10, gt=0)
    """Number of negatives in a row."""
    suspect_below: float = Field(0.5, ge=0, le=1)
    """Score below which a positive is suspect."""
    suspect_action: Literal["keep", "leave_out", "down_weight"] = "keep"
    """What to do with rows whose positive is suspect. `keep`: keep the row and flag it. `leave_out`: leave the row out.
    `down_weight`: the weight of the row in the loss is the positive's score divided by `suspect_below`."""
    seed: int = 0
    """Seed of the preset `random`, of the paper's fallback, and of samples."""
    partial: bool = False
    """Accept a score folder with missing shards."""

    @model_validator(mode="after")
    def _one_for_each(self) -> Self:
        if len(self.calibration) > len(self.scores):
            raise ValueError(
                f"calibration: there are {len(self.calibration)} files for {len(self.scores)} folders of scores. Give "
                "at most one file for each folder"
            )
        check_one_scale(self.log_odds_divisor, calibrated=bool(self.calibration))
        return self


class Selection(ScoreFolders):
    """The settings that decide which hard negatives are chosen. A selection can be repeated without the judge."""

    preset: Preset = "unime-v2"
    """The rule of the selection. `unime-v2`: the rule that fits the released data. `paper`: the rule in the paper.
    Rules that ignore scores, for comparison: `topk` (the most similar candidates), `random` (items of the whole pool),
    `cyclic` (candidates in strides, without a filter)."""
    betas: Margins | None = None
    """Margins below the positive's score, tried in turn until a candidate survives. By default the preset's margins."""
    k: int | None = Field(None, gt=0)
    """Number of candidates to use, the most similar first. By default all scored candidates are used."""
    stride: int = Field(5, gt=0)
    """Step of the walk through the survivors, in order of similarity."""
    extra_positives: bool = False
    """Offer candidates that score at least as high as the positive as further positives of the row."""


class SelectSettings(Selection):
    """The settings of one selection of hard negatives."""

    corpus: Location
    """The corpus of the scores."""
    vectors: Location | None = None
    """The corpus' embeddings, for measuring the diversity of a row's negatives. By default it is not measured."""
    out: Location
    """The folder of training rows."""
    min_rows: int = Field(1, gt=0)
    """Smallest number of rows. A selection with fewer rows is not written and ends with status 1."""
    compare: Location | None = None
    """The folder of another selection to compare with. Counts how many of its rows and negatives are chosen again."""
