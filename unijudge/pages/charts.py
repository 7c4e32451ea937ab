"""Charts as inline SVG for `pages/pages.py`, without network and without scripts.

A chart takes its colours from the page: the n-th series has the style class `s<n>`.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

from markupsafe import Markup

WIDTH, HEIGHT = 640, 240
LEFT, RIGHT, TOP, BOTTOM = 52, 20, 26, 38
"""Margins of a chart, for its labels."""
LETTER, ROW = 6.2, 16
"""Width of a letter and height of a row in a legend."""
LABEL_LINE = 12
"""The height of a label of a mark, in pixels."""
SERIES = 7
"""The number of series for which the page's style has colours."""
FINEST = 300
"""The most points of a line. In a longer line, neighbouring points are averaged."""
WINDOWS = 20
"""The smoothing of a line: each point becomes the mean of the 1/`WINDOWS` of the line on either side."""

Points = Sequence[tuple[float, float]]


def histogram(
    series: Mapping[str, Sequence[float]],
    *,
    low: float,
    high: float,
    x_label: str,
    mark: tuple[float, str],
    bins: int = 40,
) -> Markup:
    """Draws a histogram of several series over the same bins. Each series is drawn as shares of its own values.

    Args:
        series: Name → values. A value outside `low` and `high` is counted in the outermost bin.
        low: The beginning of the first bin.
        high: The end of the last bin.
        x_label: The label of the x axis.
        mark: The x of a vertical line, and its label.
        bins: The number of bins.
    """
    counts = {name: [0] * bins for name in series}
    for name, values in series.items():
        for value in values:
            counts[name][bin_of(value, low, high, bins)] += 1
    return bars(counts, low=low, high=high, x_label=x_label, marks=[mark])


def bin_of(value: float, low: float, high: float, bins: int) -> int:
    """Returns the bin of a value. A value outside the range belongs to the outermost bin.

    Example:
        >>> [bin_of(value, 0.0, 1.0, 4) for value in (-7.0, 0.25, 1.0)]
        [0, 1, 3]
    """
    return min(bins - 1, max(0, int((value - low) / (high - low) * bins)))


def bars(
    counts: Mapping[str, Sequence[int]],
    *,
    low: float,
    high: float,
    x_label: str,
    marks: Sequence[tuple[float, str]],
) -> Markup:
    """Draws a histogram of values that were already counted, for example in a stream (`bin_of`).

    `marks` are vertical lines with their labels.
    """
    bins = max((len(values) for values in counts.values()), default=1)
    shares = {name: _shares(values) for name, values in counts.items()}
    top = max((max(values) for values in shares.values()), default=0) or 1.0
    plot = _Plot((low, high), (0.0, 1.12 * top), list(counts))  # room for the first mark's label
    width = (high - low) / bins
    drawn = []
    for number, values in enumerate(shares.values(), start=1):
        steps = []
        for index, value in enumerate(values):
            left = plot.at(low + index * width, value)
            right = plot.at(low + (index + 1) * width, value)
            steps.append(Markup("L{} {} L{} {}").format(*left, *right))
        outline = Markup(" ").join(steps)
        area = Markup('<path class="area s{}" d="M{} {} {} L{} {} Z"/>')
        drawn.append(area.format(number, *plot.at(low, 0), outline, *plot.at(high, 0)))

    # Each label is one line lower than the label before it, so that near marks stay readable.
    for number, (value, label) in enumerate(marks):
        x, y = plot.at(value, 1.12 * top)
        line = Markup(
            '<line class="mark" x1="{0}" y1="{1}" x2="{0}" y2="{2}"/><text x="{3}" y="{4}">{5}</text>'
        )
        drawn.append(
            line.format(x, y, plot.at(0, 0)[1], x + 4, y + 10 + LABEL_LINE * number, label)
        )
    return plot.svg(drawn, x_label, "share", f"{x_label}, as a histogram")


def curves(
    series: Mapping[str, Points], *, x_label: str, y_label: str, smooth: bool = False
) -> Markup:
    """Draws lines over a common x axis. A series without points appears only in the legend.

    Args:
        series: Name → points, in order of x; at most `SERIES` series.
        x_label: The label of the x axis.
        y_label: The label of the y axis.
        smooth: Whether each line is `smoothed`, and drawn over a faint line of the original points.
    """
    thin_lines = [thinned(points) for points in series.values()]
    xs = [x for line in thin_lines for x, _ in line] or [0.0]
    ys = [y for line in thin_lines for _, y in line] or [0.0]

    # A single line with the name of its axis needs no legend.
    names = list(series)
    if names == [y_label]:
        names = []
    plot = _Plot((min(xs), max(xs)), (min(0.0, *ys), max(ys)), names)

    def drawn(style: str, lines: Iterable[Points]) -> Iterator[Markup]:
        for number, line in enumerate(lines, start=1):
            places = " ".join("{},{}".format(*plot.at(x, y)) for x, y in line)
            yield Markup('<polyline class="{} s{}" points="{}"/>').format(style, number, places)

    if smooth:
        smooth_lines = [smoothed(line, len(line) // WINDOWS) for line in thin_lines]
        lines = [*drawn("line raw", thin_lines), *drawn("line", smooth_lines)]
    else:
        lines = [*drawn("line", thin_lines)]
    return plot.svg(lines, x_label, y_label, f"{y_label} by {x_label}")


def smoothed(points: Points, reach: int) -> Points:
    """Returns a smoothed line: each point becomes the mean of itself and of up to `reach` points on either side.

    Example:
        >>> smoothed([(1, 4.0), (2, 0.0), (3, 2.0), (4, 4.0)], 1)
        [(1, 2.0), (2, 2.0), (3, 2.0), (4, 3.0)]
    """
    near = [points[max(0, index - reach) : index + reach + 1] for index in range(len(points))]
    return [(x, _mean(some)[1]) for (x, _), some in zip(points, near, strict=True)]


def thinned(points: Points, most: int = FINEST) -> Points:
    """Returns at most `most` points, by replacing neighbouring points with their mean.

    Example:
        >>> thinned([(1, 1.0), (2, 3.0), (3, 5.0), (4, 7.0)], most=2)
        [(1.5, 2.0), (3.5, 6.0)]
    """
    size = -(-len(points) // most)
    if size <= 1:
        return points
    blocks = [points[start : start + size] for start in range(0, len(points), size)]
    return [_mean(block) for block in blocks]


def _mean(points: Points) -> tuple[float, float]:
    """Returns the mean of x and the mean of y."""
    xs, ys = zip(*points, strict=True)
    return sum(xs) / len(xs), sum(ys) / len(ys)


def _shares(values: Sequence[int]) -> list[float]:
    """Returns each value as a share of the sum."""
    total = max(1, sum(values))
    return [value / total for value in values]


class _Plot:
    """The axes and the legend of a chart. It converts data into coordinates of the drawing."""

    def __init__(self, xs: tuple[float, float], ys: tuple[float, float], names: Sequence[str]):
        self._xs = _not_empty(xs)
        self._ys = _not_empty(ys)
        self._names = list(_placed(names))

        # A legend of several rows moves the axes down.
        last_row = max((row for _, _, row in self._names), default=0)
        self._below = ROW * last_row

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Returns the rounded coordinates of a point in the drawing."""
        x0, x1 = self._xs
        across = LEFT + (x - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT)

        # The y axis of a drawing points down.
        y0, y1 = self._ys
        bottom = self._below + HEIGHT - BOTTOM
        down = bottom - (y - y0) / (y1 - y0) * (HEIGHT - TOP - BOTTOM)
        return round(across, 1), round(down, 1)

    def svg(self, drawn: Sequence[Markup], x_label: str, y_label: str, title: str) -> Markup:
        """Returns the complete chart, with ticks and a legend."""
        height = HEIGHT + self._below
        parts = [
            Markup('<svg viewBox="0 0 {} {}" role="img"><title>{}</title>').format(
                WIDTH, height, title
            )
        ]
        for value in ticks(*self._ys):
            x, y = self.at(self._xs[0], value)
            parts.append(
                Markup(
                    '<line class="grid" x1="{}" y1="{}" x2="{}" y2="{}"/><text class="end" x="{}" y="{}">{}</text>'
                ).format(x, y, WIDTH - RIGHT, y, x - 6, y + 4, f"{value:g}")
            )
        for value in ticks(*self._xs):
            x, y = self.at(value, self._ys[0])
            parts.append(
                Markup('<text class="middle" x="{}" y="{}">{}</text>').format(
                    x, y + 16, f"{value:g}"
                )
            )
        parts += drawn
        parts.append(
            Markup('<text class="middle" x="{}" y="{}">{}</text>').format(
                WIDTH / 2, height - 4, x_label
            )
        )
        parts.append(Markup('<text x="4" y="12">{}</text>').format(y_label))
        for number, (name, across, row) in enumerate(self._names, start=1):
            parts.append(
                Markup(
                    '<rect class="key s{}" x="{}" y="{}" width="10" height="10"/><text x="{}" y="{}">{}</text>'
                ).format(number, across, 4 + ROW * row, across + 14, 13 + ROW * row, name)
            )
        return Markup("").join([*parts, Markup("</svg>")])


def _not_empty(ends: tuple[float, float]) -> tuple[float, float]:
    """Returns the ends of an axis. An axis without a length becomes one unit long."""
    low, high = ends
    return (low, high) if high > low else (low, low + 1)


def _placed(names: Sequence[str]) -> Iterator[tuple[str, float, int]]:
    """Yields each entry of a legend with its x coordinate and its row. An entry that does not fit begins a new row."""
    across, row = float(LEFT) + 60, 0
    for name in names:
        width = 30 + LETTER * len(name)
        if across + width > WIDTH and across > LEFT + 60:
            across, row = float(LEFT) + 60, row + 1
        yield name, round(across, 1), row
        across += width


def ticks(low: float, high: float) -> list[float]:
    """Returns a few round numbers within a range.

    Example:
        >>> ticks(0.0, 0.31)
        [0.0, 0.1, 0.2, 0.3]
    """
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(step * power for step in (1, 2, 5, 10) if step * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(multiple * step, 10) for multiple in range(first, last + 1)]
