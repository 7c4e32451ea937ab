"""The settings of the page of `mine inspect`: one TOML file, `--example` prints it."""

from pydantic import Field, field_validator

from miner.selection.settings import Preset, Selection
from unijudge.storage.locations import Location


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
