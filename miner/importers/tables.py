"""Reads the rows of tables for an import, and reports ignored columns and files."""

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from miner.importers.building.pair import Ignored, Pair, Pooled, Row, readable
from unijudge.foreign.cells import present
from unijudge.foreign.columns import Columns
from unijudge.foreign.tables import READERS, ending_of, files_of, name_of, read_rows, shared_folder
from unijudge.shown import listed
from unijudge.storage.listing import all_files
from unijudge.storage.stores import is_folder

SPLITS = frozenset(
    {
        "train",
        "training",
        "test",
        "testing",
        "valid",
        "validation",
        "val",
        "dev",
        "eval",
        "evaluation",
    }
)
PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".zip")
"""Endings of image files, and of archives of image files."""

logger = logging.getLogger(__name__)


def table_rows(
    places: Path | Sequence[Path],
    columns: Columns,
    make: Callable[[dict[str, Any], str, str], Pair | Pooled],
) -> Iterator[Row]:
    """Yields every row of some files, then everything that was ignored.

    Several files are parts of one table, which has the name of the folder that holds all of them.

    Args:
        places: Files, folders of files, or patterns.
        columns: The columns to read.
        make: Makes a row, given its known cells, its place for messages, and the name of its table.

    Raises:
        DataError: See `read_rows` and `Columns.known_of`.
    """
    given = places if isinstance(places, Sequence) else [places]
    files = files_of(given)
    folder = shared_folder(files)
    names = [str(path)[len(folder) :] for path in files]
    table = name_of(files[0]) if len(files) == 1 else Path(folder).absolute().name

    for path, name in zip(files, names, strict=True):
        for number, row in read_rows(path, columns):
            cells = {column: present(cell) for column, cell in row.items()}
            place = f"{name.lstrip('/')}:{number}"
            yield readable(make, cells, place, table)

    # Unknown columns and files are counted, so that a user notices a misspelled name.
    columns.tell_unknown(files[0] if len(files) == 1 else folder)
    for column in columns.unknown:
        yield Ignored("columns", column)
    _warn_of_splits(folder, names)
    for given_place in given:
        yield from _unknown_files(given_place)


def _warn_of_splits(folder: str, names: Sequence[str]) -> None:
    """Warns if files with the names of several splits were read as one table."""
    words = {word.lower() for name in names for word in re.split(r"[^A-Za-z]+", name)}
    splits = words & SPLITS
    if len(splits) > 1:
        logger.warning(
            "%s: files of several splits (%s) were read as one table. Give the files of one split",
            folder, listed(splits),
        )  # fmt: skip


def _unknown_files(place: Path) -> Iterator[Ignored]:
    """Yields the files of a folder that are neither tables nor images."""
    for path in all_files(place) if is_folder(place) else ():
        if ending_of(path) not in (*READERS, *PICTURES):
            yield Ignored("files", path.relative_to(place).as_posix())
