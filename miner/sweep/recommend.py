"""Recommends a β by the statistics of many selections, and prints the statistics as a table. Pure."""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from miner.selection.settings import Preset

COLUMNS: dict[str, str | None] = {
    "rows": "rows kept",
    "survivors": "mean survivors of a row",
    "false neg.": None,
    "score": "mean score of a negative",
    "similarity": "mean similarity of a negative",
    "alike": "mean similarity among",
    "dropped": "share of candidates dropped",
    "short": None,
    "under-filled": "rows under-filled",
    "fallback": "rows filled by fallback",
    "suspect": "suspect positives",
    "ties": "rows with tied negatives",
}
"""The head of a column → the start of the name of its statistic. None: a share of the point."""
MEANINGS = {
    "rows": "rows kept",
    "survivors": "mean number of candidates of a row that are not dropped",
    "false neg.": "expected share of false negatives among the chosen negatives",
    "score": "mean score of a chosen negative",
    "similarity": "mean similarity of a chosen negative to its query",
    "alike": "mean similarity among the negatives of a row",
    "dropped": "share of candidates that are dropped as false negatives",
    "short": "share of rows with fewer survivors than num_negatives, kept or left out",
    "under-filled": "rows kept that repeat negatives",
    "fallback": "rows kept without a survivor, filled by the preset's fallback",
    "suspect": "rows whose positive has a score below suspect_below",
    "ties": "rows with negatives of equal score",
}
"""The head of a column → its meaning, which is printed under the table."""


class SweepPoint(BaseModel):
    """One selection of the grid and its statistics."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    preset: Preset
    betas: tuple[float, ...]
    """The margins, tried in turn; empty if the preset ignores scores."""
    k: int | None
    """The number of candidates to use; None: all candidates."""
    stride: int | None
    """The step of the walk; None if the preset has no walk in strides."""
    statistics: dict[str, float]
    """The statistics that `mine select` prints."""
    false_negative_share: float | None
    """The expected share of false negatives among the chosen negatives."""
    short_share: float | None
    """The share of rows with fewer survivors than `num_negatives`, among the rows with candidates."""

    @property
    def ladder(self) -> str:
        """The margins as text; empty if the preset ignores scores."""
        return " → ".join(f"{beta:g}" for beta in self.betas)


def recommend(
    points: Sequence[SweepPoint], max_false_negatives: float, max_short: float, *, calibrated: bool
) -> tuple[int | None, str]:
    """Recommends the smallest β with few false negatives and full rows, and explains the recommendation.

    A larger β drops more false negatives, but leaves fewer and easier negatives. So this recommends, among the
    selections that use scores, the selection with the smallest first β (the first in the grid if several are equal)
    for which

        expected false negatives among the chosen negatives / chosen negatives ≤ max_false_negatives,
        rows with fewer survivors than `num_negatives` / rows with candidates ≤ max_short.

    Args:
        points: The grid with its statistics.
        max_false_negatives: The largest allowed share of false negatives, in [0, 1].
        max_short: The largest allowed share of short rows, in [0, 1]. A row is short if it is filled up, drawn at
            random or left out because it has too few survivors.
        calibrated: Whether scores are probabilities. If not, the sentence says that scores are taken at face value.

    Returns:
        An index into `points`, or None if no point fits, and a sentence with the numbers.
    """
    # Points that use scores, by their first β.
    scored = [point for point in points if point.betas and point.false_negative_share is not None]
    scored.sort(key=lambda point: point.betas[0])
    if not scored:
        return (
            None,
            "No selection of this grid uses scores and keeps a row, so there is no β to recommend.",
        )

    safe = [point for point in scored if _false_negatives(point) <= max_false_negatives]
    full = [point for point in scored if _short(point) <= max_short]
    at_face_value = "" if calibrated else " at face value (no calibration is given)"
    limits = f"at most {max_false_negatives:.1%} expected false negatives{at_face_value} and {max_short:.1%} short rows"
    for point in safe:
        if point in full:
            return points.index(
                point
            ), f"{_described(point)}: the smallest β of the grid with {limits}."

    # No point keeps both limits. The sentence names the best point for each limit.
    safest = safe[0] if safe else min(scored, key=_false_negatives)
    fullest = full[-1] if full else min(scored, key=_short)
    nearest = _described(safest)
    if fullest is not safest:
        nearest += f"; or {_described(fullest)}"
    return None, (
        f"No β of the grid has {limits}. The nearest are {nearest}. Raise the limit that matters less, try different "
        "margins, or score more candidates."
    )


def comparison_table(points: Sequence[SweepPoint]) -> list[list[str]]:
    """Returns the statistics as text: a head, then one row for each point. Columns without a number are left out."""
    rows = [["preset", "β", "k", "stride", *COLUMNS]]
    for point in points:
        k = "all" if point.k is None else str(point.k)
        stride = "" if point.stride is None else str(point.stride)
        cells = [_cell(point, column) for column in COLUMNS]
        rows.append([point.preset, point.ladder, k, stride, *cells])

    columns = zip(*rows, strict=True)
    measured = [column for column in columns if any(column[1:])]
    return [list(row) for row in zip(*measured, strict=True)]


def _cell(point: SweepPoint, column: str) -> str:
    """Returns a point's share, or the first of its statistics whose name has the start of the column; else no text."""
    start = COLUMNS[column]
    if start is None:
        share = point.short_share if column == "short" else point.false_negative_share
        return "" if share is None else f"{share:.1%}"
    for name, value in point.statistics.items():
        if name.startswith(start):
            return _number(value)
    return ""


def _number(value: float) -> str:
    return f"{value:,.3f}" if value % 1 and value < 1000 else f"{value:,.0f}"


def _false_negatives(point: SweepPoint) -> float:
    return point.false_negative_share or 0


def _short(point: SweepPoint) -> float:
    return point.short_share or 0


def _described(point: SweepPoint) -> str:
    k = "" if point.k is None else f", k {point.k}"
    walk = "" if point.stride is None else f", stride {point.stride}"
    return (
        f"β = {point.ladder} ({point.preset}{k}{walk}), with {point.false_negative_share or 0:.1%} expected false "
        f"negatives and {point.short_share or 0:.1%} short rows"
    )
