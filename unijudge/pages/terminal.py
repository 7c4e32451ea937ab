"""Tables for people who read a terminal, a log or a file of plain text."""

from collections.abc import Iterable, Sequence
from itertools import islice

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table


def aligned(rows: Iterable[Sequence[str]], *, left: int = 1) -> list[str]:
    """Rows as lines of text, with their columns under each other.

    Args:
        rows: Rows of as many cells.
        left: How many columns, from the first on, are aligned at the left; the others, numbers, at the right.

    Example:
        >>> aligned([["subset", "queries"], ["colors", "12"]])
        ['subset  queries', 'colors       12']
    """
    table = [list(row) for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(_padded(row, widths, left)).rstrip() for row in table]


def _padded(row: Sequence[str], widths: Sequence[int], left: int) -> Iterable[str]:
    for place, (cell, width) in enumerate(zip(row, widths, strict=True)):
        blanks = " " * (width - cell_len(cell))
        yield cell + blanks if place < left else blanks + cell


def print_table(head: Sequence[str], rows: Iterable[Sequence[str]], *, marked: int | None = None) -> None:
    """Prints a table of numbers, whose first column names the rows: on a terminal with lines, elsewhere aligned.

    Args:
        head: The names of the columns.
        rows: The cells.
        marked: The row that stands out on a terminal.
    """
    console = Console()
    if not console.is_terminal:
        console.out("\n".join(aligned([head, *rows])), highlight=False)
        return
    table = Table(head[0])
    for name in islice(head, 1, None):
        table.add_column(name, justify="right")
    for place, row in enumerate(rows):
        table.add_row(*row, style="bold" if place == marked else None)
    console.print(table)
