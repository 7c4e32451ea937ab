"""Selections side by side: their numbers as a table, and the β that the numbers speak for. Pure."""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from miner.selection.settings import Preset

COLUMNS = {
    "rows": "rows kept",
    "survivors": "mean survivors of a row",
    "false neg.": "expected false negatives",
    "score": "mean score of a negative",
    "similarity": "mean similarity of a negative",
    "alike": "mean similarity among",
    "dropped": "share of candidates dropped",
    "short": "rows short of survivors",
    "under-filled": "rows under-filled",
    "fallback": "rows filled by fallback",
    "suspect": "suspect positives",
    "ties": "rows with tied negatives",
}
"""The head of a column → how the name of its statistic begins."""


class SweepPoint(BaseModel):
    """One selection of the grid, and what it counted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    preset: Preset
    betas: tuple[float, ...]
    """Empty where no judge decides."""
    k: int | None
    """None: all candidates."""
    stride: int | None
    """None where nothing walks."""
    statistics: dict[str, float]
    """What `mine select` prints."""
    false_negative_share: float | None
    """Expected false negatives among the chosen."""
    short_share: float | None
    """Rows with fewer survivors than they should have negatives, among those with candidates."""

    @property
    def ladder(self) -> str:
        """Its margins, as people write them; empty where no judge decides."""
        return " → ".join(f"{beta:g}" for beta in self.betas)


def recommend(
    points: Sequence[SweepPoint], max_false_negatives: float, max_short: float, *, calibrated: bool
) -> tuple[int | None, str]:
    """The smallest β that keeps false negatives few and rows full, and why.

    A larger β drops more false negatives, but also leaves fewer negatives, and of those the easier ones. So of the
    selections that ask the judge, that one is recommended whose first β is the smallest (of equals, the first in the
    grid) with

        expected false negatives among the chosen / chosen ≤ max_false_negatives,
        rows with fewer survivors than they should have negatives / rows with candidates ≤ max_short.

    Args:
        points: The grid, counted.
        max_false_negatives: A share.
        max_short: A share. Rows that were filled up, drawn at random or left out for want of survivors are short.
        calibrated: Whether scores are chances; if not, the sentence says that they are taken at face value.

    Returns:
        A place in `points`, or None where none fits, and one sentence made of the numbers.
    """
    asked = [place for place, point in enumerate(points) if point.betas and point.false_negative_share is not None]
    asked.sort(key=lambda place: points[place].betas[0])
    if not asked:
        return None, "No selection of this grid asks the judge and keeps a row: there is no β to recommend."
    few = [place for place in asked if (points[place].false_negative_share or 0) <= max_false_negatives]
    full = [place for place in asked if (points[place].short_share or 0) <= max_short]
    both = [place for place in few if place in full]
    face = "" if calibrated else " at face value (no calibration is given)"
    limits = f"at most {max_false_negatives:.1%} expected false negatives{face} and {max_short:.1%} short rows"
    if both:
        return both[0], f"{_told(points[both[0]])}: the smallest β of the grid with {limits}."
    safe = few[0] if few else min(asked, key=lambda place: points[place].false_negative_share or 0)
    rich = full[-1] if full else min(asked, key=lambda place: points[place].short_share or 0)
    nearest = "; or ".join(_told(points[place]) for place in dict.fromkeys([safe, rich]))
    return None, (
        f"No β of the grid has {limits}; nearest: {nearest}. Raise the limit that matters less, try other margins, or "
        "have more candidates scored."
    )


def comparison_table(points: Sequence[SweepPoint]) -> list[list[str]]:
    """The table as text: its head, then a row for each point; without columns that nothing was measured for."""
    rows = [["preset", "β", "k", "stride", *COLUMNS]]
    for point in points:
        k, stride = ("all" if point.k is None else str(point.k)), ("" if point.stride is None else str(point.stride))
        cells = [_cell(point, wanted) for wanted in COLUMNS.values()]
        rows.append([point.preset, point.ladder, k, stride, *cells])
    measured = [column for column in zip(*rows, strict=True) if any(column[1:])]
    return [list(row) for row in zip(*measured, strict=True)]


def _cell(point: SweepPoint, wanted: str) -> str:
    """The first of a point's statistics whose name begins so; empty where it was not measured."""
    for name, value in point.statistics.items():
        if name.startswith(wanted):
            return _number(value)
    return ""


def _number(value: float) -> str:
    return f"{value:,.3f}" if value % 1 and value < 1000 else f"{value:,.0f}"


def _told(point: SweepPoint) -> str:
    k = "" if point.k is None else f", k {point.k}"
    walk = "" if point.stride is None else f", stride {point.stride}"
    return (
        f"β = {point.ladder} ({point.preset}{k}{walk}), with {point.false_negative_share or 0:.1%} expected false "
        f"negatives and {point.short_share or 0:.1%} short rows"
    )
