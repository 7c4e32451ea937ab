"""The settings of a sweep: one TOML file, `--example` prints it."""

from typing import Annotated, Literal

from pydantic import Field

from miner.selection.settings import Rungs, ScoreFolders
from unijudge.storage.locations import Location


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
    """… and at most this share of rows with fewer survivors than `num_negatives`."""
    out: Location | None = None
    """A JSON file for all of it; an older one is replaced, another file is not."""
