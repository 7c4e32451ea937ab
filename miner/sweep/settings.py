"""The settings of a sweep. They come from one TOML file, and `--example` prints one."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from miner.selection.settings import Rungs, ScoreFolders, one_as_tuple
from unijudge.storage.locations import Location


class SweepSettings(ScoreFolders):
    """The settings of a sweep, which compares many selections and writes no rows."""

    corpus: Location
    """The corpus of the scores."""
    vectors: Location | None = None
    """The corpus' embeddings, for measuring the diversity of a row's negatives. By default it is not measured."""
    presets: Annotated[
        tuple[Literal["unime-v2", "paper", "topk", "cyclic"], ...],
        BeforeValidator(one_as_tuple),
        Field(min_length=1),
    ] = (
        "unime-v2",
        "topk",
    )
    """Presets to compare, as the `preset` of a selection. `random` is not among them, because it draws items without
    scores."""
    betas: Annotated[tuple[Rungs, ...], BeforeValidator(one_as_tuple), Field(min_length=1)] = (
        0.01,
        0.05,
        0.1,
        0.2,
        0.3,
        (0.1, 0.01, 0.001),
    )
    """Margins to compare, for presets that use scores. Each is a number (0.1) or a list of margins that a selection
    tries in turn ([0.1, 0.01])."""
    ks: Annotated[
        tuple[Annotated[int, Field(gt=0)] | Literal["all"], ...],
        BeforeValidator(one_as_tuple),
        Field(min_length=1),
    ] = ("all",)
    """Numbers of candidates to compare. Each is a number, for the most similar candidates, or `"all"`."""
    strides: Annotated[
        tuple[Annotated[int, Field(gt=0)], ...], BeforeValidator(one_as_tuple), Field(min_length=1)
    ] = (5,)
    """Steps of the walk to compare."""
    max_false_negatives: float = Field(0.05, ge=0, le=1)
    """Largest expected share of false negatives among the chosen negatives for a recommended β."""
    max_short: float = Field(0.2, ge=0, le=1)
    """Largest share of rows with fewer survivors than `num_negatives` for a recommended β."""
    out: Location | None = None
    """The JSON file to write the report to. An earlier report is overwritten; any other file is an error."""
