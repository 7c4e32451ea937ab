"""Tables for a terminal, a log or a plain-text file."""

from collections.abc import Iterable, Sequence
from itertools import islice

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table


def aligned(rows: Iterable[Sequence[str]], *, left: int = 1) -> list[str]:
    """Returns rows as lines of text with aligned columns.

    Args:
        rows: Rows with equal numbers of cells.
        left: The number of leading columns that are left-aligned. The other columns, numbers, are right-aligned.

    Example:
        >>> aligned([["subset", "queries"], ["colors", "12"]])
        ['subset  queries', 'colors       12']
    """
    table = [list(row) for row in rows]
    columns = zip(*table, strict=True)
    widths = [max(map(cell_len, column)) for column in columns]
    lines = []
    for row in table:
        line = "  ".join(_padded(row, widths, left))
        lines.append(line.rstrip())
    return lines


def _padded(row: Sequence[str], widths: Sequence[int], left: int) -> Iterable[str]:
    for index, (cell, width) in enumerate(zip(row, widths, strict=True)):
        padding = " " * (width - cell_len(cell))
        yield cell + padding if index < left else padding + cell


def print_table(
    head: Sequence[str], rows: Iterable[Sequence[str]], *, marked: int | None = None
) -> None:
    """Prints a table of numbers whose first column names the rows: with lines on a terminal, else as aligned text.

    Args:
        head: The names of the columns.
        rows: The cells.
        marked: The index of the row that is bold on a terminal.
    """
    console = Console()
    if not console.is_terminal:
        console.out("\n".join(aligned([head, *rows])), highlight=False)
        return
    table = Table(head[0])
    for name in islice(head, 1, None):
        table.add_column(name, justify="right")
    for index, row in enumerate(rows):
        table.add_row(*row, style="bold" if index == marked else None)
    console.print(table)
