"""The table of all measured systems above the published rows. The terminal and table.md show the same text."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from trainer.benchmarks.averages import AverageCell, average_cells
from trainer.benchmarks.published import Published, PublishedTable, published
from trainer.benchmarks.registry import AVERAGES, SETS
from unijudge.pages import markdown

NOT_MEASURED = "–"
EXPECTED = {subset: count for one in SETS for subset, count in one.queries.items()}
DATA_SETS = {
    "flickr30k": "Flickr30K",
    "coco": "COCO",
    "sharegpt4v": "ShareGPT4V",
    "urban1k": "Urban1K",
}
DIRECTIONS = {"t2i": "T→I", "i2t": "I→T"}

Lines = list[list[str]]


class Measured(BaseModel):
    """The measures of one system, as stored in table.json."""

    identity: dict[str, Any]
    """The model, weights, adapter, encoding and image sizes of the system."""
    subsets: dict[str, dict[str, float]]
    """Subset → all measures of the subset."""
    cells: dict[str, AverageCell]
    """Subset or average → cell of the table."""
    others: list[str] = []
    """The sets that were measured on another corpus than the current corpus. The table does not show these sets."""

    @classmethod
    def of(
        cls,
        identity: dict[str, Any],
        subsets: dict[str, dict[str, float]],
        others: Sequence[str] = (),
    ) -> "Measured":
        """Computes the averages, and sorts the subsets in the order of the benchmarks. Unknown subsets are left out."""
        subsets = {name: subsets[name] for name in EXPECTED if name in subsets}
        cells = average_cells(subsets, EXPECTED, AVERAGES)
        return cls(identity=identity, subsets=subsets, cells=cells, others=list(others))


class ResultTable(BaseModel):
    """The content of table.json."""

    systems: dict[str, Measured]
    """Name of a system → measures of the system."""
    published: Published
    """The published reference rows, in per cent."""

    @classmethod
    def of(cls, systems: dict[str, Measured]) -> "ResultTable":
        """Adds the published rows to the measures of the systems."""
        return cls(systems=systems, published=published())

    def text(self) -> str:
        """Returns the table as Markdown, in per cent."""
        parts: list[str] = []
        for published_table in self.published.tables:
            parts += _reference(published_table, self.systems)
        parts += ["## Sets", _table(_set_lines(self.systems)), "\n".join(_notes(self.systems))]
        parts += [f"Published rows: {self.published.source}.", ""]
        return "\n\n".join(parts)


def _reference(table: PublishedTable, systems: Mapping[str, Measured]) -> Iterator[str]:
    """Yields a published table below the measured rows, or nothing if no measured row has a number in the table."""
    measured: dict[str, Mapping[str, AverageCell]] = {}
    for name, system in systems.items():
        if not system.cells.keys().isdisjoint(table.columns):
            measured[name] = system.cells
    if not measured:
        return

    # Two lines for each measured system, then one for each published system.
    headings = [_heading(column, table.title) for column in table.columns]
    lines = [["system", *headings]]
    for name, cells in measured.items():
        of_columns = [cells.get(column) for column in table.columns]
        lines.append([f"**{name}**", *map(_value, of_columns)])
        lines.append(["95 % interval", *map(_interval, of_columns)])
    for name, values in table.rows.items():
        marked = " †" if name in table.class_means else ""
        cells_of_row = [f"{value:.1f}" for value in values]
        lines.append([f"published: {name}{marked}", *cells_of_row])
    yield f"## {table.title}"
    yield _table(lines)
    yield "\n".join(f"* {note}" for note in table.notes)


def _set_lines(systems: Mapping[str, Measured]) -> Lines:
    lines = [
        ["system", "set", "queries", "candidates", "precision@1", "95 % interval", "modality gap"]
    ]
    for name, one in systems.items():
        for subset, measures in one.subsets.items():
            cell = one.cells[subset]
            gap = f"{measures['modality gap']:.3f}" if "modality gap" in measures else NOT_MEASURED
            counts = [f"{measures['queries']:,.0f}", f"{measures['candidates']:,.1f}"]
            lines.append([name, _heading(subset), *counts, _value(cell), _interval(cell), gap])
    return lines


def _notes(systems: Mapping[str, Measured]) -> Iterator[str]:
    yield f"* {NOT_MEASURED} means: not measured, or an average that lacks a set. This mark never means zero."
    yield "* The modality gap is the distance between the mean embedding of contents with an image and of texts."
    for name, one in systems.items():
        known = []
        for key, value in one.identity.items():
            if value not in (0, "none", "unknown"):
                known.append(f"{key} {value}")
        yield f"* {name}: {', '.join(known)}."
        if one.others:
            yield (
                f"* {name}: the table does not show {', '.join(one.others)}, measured on another corpus than the "
                "current corpus (another instruction, or other data). Measure these sets again."
            )
        partial = [
            f"{subset} ({measures['queries']:,.0f} of {EXPECTED[subset]:,} queries)"
            for subset, measures in one.subsets.items()
            if one.cells[subset].partial
        ]
        if partial:
            yield f"* \\* {name}: partial sets are {', '.join(partial)}."


def _heading(name: str, title: str = "") -> str:
    """Returns the heading of a subset or average.

    Example:
        >>> _heading("coco_t2i"), _heading("MSCOCO_t2i"), _heading("Overall", "Summary")
        ('COCO T→I', 'MSCOCO_t2i', 'MMEB')
    """
    data_set, _, direction = name.rpartition("_")
    if data_set in DATA_SETS:
        return f"{DATA_SETS[data_set]} {DIRECTIONS[direction]}"
    return "MMEB" if (name, title) == ("Overall", "Summary") else name


def _value(cell: AverageCell | None) -> str:
    if cell is None:
        return NOT_MEASURED
    mark = " \\*" if cell.partial else ""
    return f"{100 * cell.value:.1f}{mark}"


def _interval(cell: AverageCell | None) -> str:
    return "" if cell is None else f"{100 * cell.low:.1f}–{100 * cell.high:.1f}"


def _table(lines: Lines) -> str:
    """Returns a Markdown table whose columns are also aligned as plain text. The first line is the head."""
    head, *rows = lines
    return markdown.table(head, rows, padded=True)
