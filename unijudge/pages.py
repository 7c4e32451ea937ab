"""HTML pages that stand alone: one file, light and dark, charts as inline SVG, no network, and no script but our own.

The templates are Jinja's and escape all that they are given. A chart takes its colours from the page: the n-th series
has the style class `s<n>`.
"""

import base64
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

WIDTH, HEIGHT = 640, 240
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 26, 38
"""Margins of a chart, for its labels."""

Points = Sequence[tuple[float, float]]


def page(template: Path, **values: object) -> str:
    """Renders a template that extends `page.html.jinja`; a name that it uses and is not given is an error.

    Args:
        template: The file.
        values: What it uses.
    """
    folders = [template.parent, Path(__file__).parent]
    environment = Environment(
        loader=FileSystemLoader(folders), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template(template.name).render(**values)


@dataclass(frozen=True)
class Script:
    """A script of our own inside a page, and the policy under which it is the only one that runs."""

    source: str

    @property
    def policy(self) -> str:
        """For a `Content-Security-Policy`: this script, the page's own styles, embedded pictures, and nothing else."""
        digest = base64.b64encode(hashlib.sha256(self.source.encode()).digest()).decode()
        return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"

    @property
    def element(self) -> Markup:
        """The script, as it stands."""
        return Markup("<script>{}</script>").format(Markup(self.source))  # noqa: S704  our own file


def data(name: str, value: object) -> Markup:
    """A JSON value inside a page, for its script: no text in it can end the element.

    Example:
        >>> data("rows", ["</script>"]).count("</script>")
        1
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return Markup('<script type="application/json" id="{}">{}</script>').format(name, Markup(text))  # noqa: S704


def picture(data: bytes, *, alt: str, side: int = 84) -> Markup:
    """A PNG inside the page."""
    source = base64.b64encode(data).decode()
    return Markup('<img src="data:image/png;base64,{}" alt="{}" width="{}" height="{}">').format(
        source, alt, side, side
    )


def histogram(
    series: Mapping[str, Sequence[float]],
    *,
    low: float,
    high: float,
    x_label: str,
    mark: tuple[float, str],
    bins: int = 40,
) -> Markup:
    """Bars of several series over the same bins, each as shares of its own values, with one place marked.

    Args:
        series: Name → values; those outside of `low` and `high` are counted into the outermost bins.
        low: Where the first bin begins.
        high: Where the last bin ends.
        x_label: What the values are.
        mark: A place, and what stands there.
        bins: How many.
    """
    counts = {name: [0] * bins for name in series}
    for name, values in series.items():
        for value in values:
            counts[name][bin_of(value, low, high, bins)] += 1
    return bars(counts, low=low, high=high, x_label=x_label, mark=mark)


def bin_of(value: float, low: float, high: float, bins: int) -> int:
    """The bin of a value; the outermost ones take what lies outside.

    Example:
        >>> [bin_of(value, 0.0, 1.0, 4) for value in (-7.0, 0.25, 1.0)]
        [0, 1, 3]
    """
    return min(bins - 1, max(0, int((value - low) / (high - low) * bins)))


def bars(
    counts: Mapping[str, Sequence[int]], *, low: float, high: float, x_label: str, mark: tuple[float, str]
) -> Markup:
    """A histogram whose values were counted elsewhere, such as in a stream (`bin_of`)."""
    bins = max((len(values) for values in counts.values()), default=1)
    shares = {name: [value / max(1, sum(values)) for value in values] for name, values in counts.items()}
    top = max((max(values) for values in shares.values()), default=0) or 1.0
    plot = _Plot((low, high), (0.0, 1.12 * top))  # room for the mark's label
    width = (high - low) / bins
    drawn = [
        Markup('<path class="area s{}" d="M{} {} {} L{} {} Z"/>').format(
            number,
            *plot.at(low, 0),
            Markup(" ").join(
                Markup("L{} {} L{} {}").format(*plot.at(low + i * width, value), *plot.at(low + (i + 1) * width, value))
                for i, value in enumerate(values)
            ),
            *plot.at(high, 0),
        )
        for number, values in enumerate(shares.values(), start=1)
    ]
    x, y = plot.at(mark[0], 1.12 * top)
    line = Markup('<line class="mark" x1="{0}" y1="{1}" x2="{0}" y2="{2}"/><text x="{3}" y="{4}">{5}</text>').format(
        x, y, plot.at(0, 0)[1], x + 4, y + 10, mark[1]
    )
    return plot.svg([*drawn, line], list(counts), x_label, "share", f"{x_label}, as a histogram")


def curves(series: Mapping[str, Points], *, x_label: str, y_label: str) -> Markup:
    """Lines over a common x."""
    points = [point for line in series.values() for point in line]
    xs, ys = [x for x, _ in points] or [0.0], [y for _, y in points] or [0.0]
    plot = _Plot((min(xs), max(xs)), (min(0.0, *ys), max(ys)))
    drawn = [
        Markup('<polyline class="line s{}" points="{}"/>').format(
            number, " ".join("{},{}".format(*plot.at(x, y)) for x, y in line)
        )
        for number, line in enumerate(series.values(), start=1)
    ]
    return plot.svg(drawn, list(series), x_label, y_label, f"{y_label} by {x_label}")


class _Plot:
    """Axes: data → places in the drawing."""

    def __init__(self, xs: tuple[float, float], ys: tuple[float, float]):
        self._xs = (xs[0], xs[1] if xs[1] > xs[0] else xs[0] + 1)
        self._ys = (ys[0], ys[1] if ys[1] > ys[0] else ys[0] + 1)

    def at(self, x: float, y: float) -> tuple[float, float]:
        """In the drawing's units, rounded."""
        (x0, x1), (y0, y1) = self._xs, self._ys
        across = LEFT + (x - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT)
        down = HEIGHT - BOTTOM - (y - y0) / (y1 - y0) * (HEIGHT - TOP - BOTTOM)
        return round(across, 1), round(down, 1)

    def svg(self, drawn: Sequence[Markup], names: Sequence[str], x_label: str, y_label: str, title: str) -> Markup:
        """The whole chart, with ticks and a legend."""
        parts = [Markup('<svg viewBox="0 0 {} {}" role="img"><title>{}</title>').format(WIDTH, HEIGHT, title)]
        for value in ticks(*self._ys):
            x, y = self.at(self._xs[0], value)
            parts.append(
                Markup(
                    '<line class="grid" x1="{}" y1="{}" x2="{}" y2="{}"/><text class="end" x="{}" y="{}">{}</text>'
                ).format(x, y, WIDTH - RIGHT, y, x - 6, y + 4, f"{value:g}")
            )
        for value in ticks(*self._xs):
            x, y = self.at(value, self._ys[0])
            parts.append(Markup('<text class="middle" x="{}" y="{}">{}</text>').format(x, y + 16, f"{value:g}"))
        parts += drawn
        parts.append(Markup('<text class="middle" x="{}" y="{}">{}</text>').format(WIDTH / 2, HEIGHT - 4, x_label))
        parts.append(Markup('<text x="4" y="12">{}</text>').format(y_label))
        across = float(LEFT) + 60
        for number, name in enumerate(names, start=1):
            parts.append(
                Markup(
                    '<rect class="key s{}" x="{}" y="4" width="10" height="10"/><text x="{}" y="13">{}</text>'
                ).format(number, across, across + 14, name)
            )
            across += 30 + 6.2 * len(name)
        return Markup("").join([*parts, Markup("</svg>")])


def ticks(low: float, high: float) -> list[float]:
    """A few round numbers within a range.

    Example:
        >>> ticks(0.0, 0.31)
        [0.0, 0.1, 0.2, 0.3]
    """
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(step * power for step in (1, 2, 5, 10) if step * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(place * step, 10) for place in range(first, math.floor(high / step + 1e-9) + 1)]
