"""The table of all measured systems, with the published rows under them: one text for the terminal and for table.md."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from trainer.benchmarks.averages import AverageCell, average_cells
from trainer.benchmarks.published import Published, PublishedTable, published
from trainer.benchmarks.registry import AVERAGES, SETS
from unijudge.pages import markdown

NOT_MEASURED = "–"
EXPECTED = {subset: count for one in SETS for subset, count in one.queries.items()}
DATA_SETS = {"flickr30k": "Flickr30K", "coco": "COCO", "sharegpt4v": "ShareGPT4V", "urban1k": "Urban1K"}
DIRECTIONS = {"t2i": "T→I", "i2t": "I→T"}

Lines = list[list[str]]


class Measured(BaseModel):
    """One system, as table.json holds it."""

    identity: dict[str, Any]
    """Model, weights, adapter, encoding, image budget."""
    subsets: dict[str, dict[str, float]]
    """Subset → every measure of it."""
    cells: dict[str, AverageCell]
    """Subset or average → what the table shows."""
    others: list[str] = []
    """Sets that were measured on another corpus than the one that is there now, so that nothing of them is shown."""

    @classmethod
    def of(
        cls, identity: dict[str, Any], subsets: dict[str, dict[str, float]], others: Sequence[str] = ()
    ) -> "Measured":
        """With its averages; subsets in the order of the benchmarks, others left out."""
        subsets = {name: subsets[name] for name in EXPECTED if name in subsets}
        cells = average_cells(subsets, EXPECTED, AVERAGES)
        return cls(identity=identity, subsets=subsets, cells=cells, others=list(others))


class ResultTable(BaseModel):
    """table.json."""

    systems: dict[str, Measured]
    """Name → what was measured."""
    published: Published
    """The reference rows; per cent."""

    @classmethod
    def of(cls, systems: dict[str, Measured]) -> "ResultTable":
        """With the published rows."""
        return cls(systems=systems, published=published())

    def text(self) -> str:
        """The table in Markdown; per cent."""
        parts = [part for one in self.published.tables for part in _reference(one, self.systems)]
        parts += ["## Sets", _table(_set_lines(self.systems)), "\n".join(_notes(self.systems))]
        return "\n\n".join([*parts, f"Published rows: {self.published.source}.", ""])


def _reference(table: PublishedTable, systems: Mapping[str, Measured]) -> Iterator[str]:
    """A published table with our rows above its own; nothing where none of ours has a number in it."""
    ours = {name: one.cells for name, one in systems.items() if set(one.cells) & set(table.columns)}
    if not ours:
        return
    lines = [["system", *(_heading(column, table.title) for column in table.columns)]]
    for name, cells in ours.items():
        lines.append([f"**{name}**", *(_value(cells.get(column)) for column in table.columns)])
        lines.append(["95 % interval", *(_interval(cells.get(column)) for column in table.columns)])
    for name, values in table.rows.items():
        marked = " †" if name in table.class_means else ""
        lines.append([f"published: {name}{marked}", *(f"{value:.1f}" for value in values)])
    yield f"## {table.title}"
    yield _table(lines)
    yield "\n".join(f"* {note}" for note in table.notes)


def _set_lines(systems: Mapping[str, Measured]) -> Lines:
    lines = [["system", "set", "queries", "candidates", "precision@1", "95 % interval", "modality gap"]]
    for name, one in systems.items():
        for subset, measures in one.subsets.items():
            cell = one.cells[subset]
            gap = f"{measures['modality gap']:.3f}" if "modality gap" in measures else NOT_MEASURED
            counts = [f"{measures['queries']:,.0f}", f"{measures['candidates']:,.1f}"]
            lines.append([name, _heading(subset), *counts, _value(cell), _interval(cell), gap])
    return lines


def _notes(systems: Mapping[str, Measured]) -> Iterator[str]:
    yield f"* {NOT_MEASURED}: not measured, or an average that lacks a set; never zero."
    yield "* Modality gap: the distance between the mean embeddings of what has an image, and of what is text alone."
    for name, one in systems.items():
        known = {key: value for key, value in one.identity.items() if value not in (0, "none", "unknown")}
        identity = ", ".join(f"{key} {value}" for key, value in known.items())
        yield f"* {name}: {identity}."
        if one.others:
            yield (
                f"* {name}: not shown are {', '.join(one.others)}: measured on another corpus than the one that is now "
                "there (another instruction, or other data); measure them again."
            )
        partial = [
            f"{subset} ({measures['queries']:,.0f} of {EXPECTED[subset]:,} queries)"
            for subset, measures in one.subsets.items()
            if one.cells[subset].partial
        ]
        if partial:
            yield f"* \\* {name}: partial are {', '.join(partial)}."


def _heading(name: str, title: str = "") -> str:
    """As the table's head shows it.

    Example:
        >>> _heading("coco_t2i"), _heading("MSCOCO_t2i"), _heading("Overall", "Summary")
        ('COCO T→I', 'MSCOCO_t2i', 'MMEB')
    """
    data_set, _, direction = name.rpartition("_")
    if data_set in DATA_SETS:
        return f"{DATA_SETS[data_set]} {DIRECTIONS[direction]}"
    return "MMEB" if (name, title) == ("Overall", "Summary") else name


def _value(cell: AverageCell | None) -> str:
    return NOT_MEASURED if cell is None else f"{100 * cell.value:.1f}" + (" \\*" if cell.partial else "")


def _interval(cell: AverageCell | None) -> str:
    return "" if cell is None else f"{100 * cell.low:.1f}–{100 * cell.high:.1f}"


def _table(lines: Lines) -> str:
    """The first line is the head."""
    head, *rows = lines
    return markdown.table(head, rows, padded=True)
