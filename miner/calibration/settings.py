"""The settings of a calibration. They come from one TOML file, and `--example` prints one."""

from typing import Literal

from pydantic import Field

from unijudge.settings import Settings
from unijudge.storage.locations import Location


class CalibrateSettings(Settings):
    """The settings of one fit of a judge's scores to labelled pairs."""

    scores: Location
    """The folder of score shards that holds the labelled pairs."""
    labels: Location
    """The labelled pairs: labels that a page of `mine inspect` exported (.json), or rows of query_id, item_id and match
    (.jsonl, .parquet, .csv). The pairs must be a random sample, not a choice of pairs that the judge got wrong."""
    out: Location
    """The file to write. `mine select` reads it as `calibration`. An earlier calibration is overwritten; any other file
    is an error."""
    kind: Literal["temperature", "platt"] = "platt"
    """The parameters to fit. `temperature`: a slope. `platt`: a slope and an intercept."""
    min_labels: int = Field(20, ge=4)
    """Minimum number of labelled pairs with a verdict."""
    folds: int = Field(5, ge=2)
    """Number of folds of the cross-validation that measures the calibration."""
    seed: int = 0
    """Seed of the random split into folds."""
    partial: bool = False
    """Accept a score folder with missing shards."""
