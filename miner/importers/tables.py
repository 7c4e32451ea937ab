"""The rows of the tables of an import, and what was left out beside them."""

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from miner.importers.building.pair import Ignored, Pair, Pooled, Row, readable
from unijudge.foreign.cells import present
from unijudge.foreign.tables import READERS, Columns, ending_of, files_of, name_of, read_rows, shared_folder
from unijudge.shown import listed
from unijudge.storage.listing import all_files
from unijudge.storage.stores import is_folder

SPLITS = frozenset({"train", "training", "test", "testing", "valid", "validation", "val", "dev", "eval", "evaluation"})
PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".zip")
"""Endings of files that tables name, or that hold these."""

logger = logging.getLogger(__name__)


def table_rows(
    places: Path | Sequence[Path], columns: Columns, make: Callable[[dict[str, Any], str, str], Pair | Pooled]
) -> Iterator[Row]:
    """Yields every row of some files, and then what was left out.

    The table of several files is called like the folder that holds all of them, so that its parts are one.

    Args:
        places: Files, folders of files, or patterns.
        columns: Those that are read.
        make: Makes a row of its known columns, of the place where it stands, and of its table's name.

    Raises:
        DataError: As of `read_rows` and `Columns.known_of`.
    """
    given = places if isinstance(places, Sequence) else [places]
    files = files_of(given)
    folder = shared_folder(files)
    for path in files:
        name = str(path)[len(folder) :].lstrip("/")
        table = name_of(path) if len(files) == 1 else Path(folder).absolute().name
        for number, row in read_rows(path, columns):
            cells = {column: present(cell) for column, cell in row.items()}
            yield readable(make, cells, f"{name}:{number}", table)
    columns.tell_unknown(files[0] if len(files) == 1 else folder)
    yield from (Ignored("columns", name) for name in columns.unknown)
    _tell_splits(folder, [str(path)[len(folder) :] for path in files])
    for place in given:
        yield from _strangers(place)


def _tell_splits(folder: str, names: Sequence[str]) -> None:
    """Warns where files that are called after several splits were read as one table."""
    found = {word.lower() for name in names for word in re.split(r"[^A-Za-z]+", name)} & SPLITS
    if len(found) > 1:
        logger.warning(
            "%s: files of several splits (%s) were read as one table; name those of one", folder, listed(found)
        )


def _strangers(place: Path) -> Iterator[Ignored]:
    """The files of a folder that are neither tables nor pictures."""
    for path in all_files(place) if is_folder(place) else ():
        if ending_of(path) not in (*READERS, *PICTURES):
            yield Ignored("files", path.relative_to(place).as_posix())
