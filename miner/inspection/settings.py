"""The settings of the page of `mine inspect`. They come from one TOML file, and `--example` prints one."""

from pydantic import Field, field_validator

from miner.selection.settings import Preset, Selection
from unijudge.storage.locations import Location


class InspectSettings(Selection):
    """The settings of one page, on which a person inspects the outcome of a selection."""

    corpus: Location
    """The corpus of the scores."""
    out: Location
    """The HTML file to write. An earlier page is overwritten; any other file is an error."""
    rows: int = Field(1000, gt=0)
    """Maximum number of rows on the page. If there are more rows, a sample is shown that prefers rows of interest."""
    label: int = Field(100, ge=0)
    """Number of randomly sampled pairs that a person can label on the page, for `mine calibrate`. 0 turns labelling
    off."""
    max_mb: float = Field(20, ge=1)
    """Maximum size of the page, in megabytes of 10⁶ bytes. Images that do not fit are left out, starting with the
    images of candidates that were not chosen."""

    @field_validator("preset")
    @classmethod
    def _of_candidates(cls, preset: Preset) -> Preset:
        if preset == "random":
            raise ValueError(
                "random draws from the whole pool, but a page shows only scored candidates. Give another preset"
            )
        return preset
