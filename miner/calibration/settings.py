"""The settings of a calibration: one TOML file, `--example` prints it."""

from typing import Literal

from pydantic import Field

from unijudge.settings import Settings
from unijudge.storage.locations import Location


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
