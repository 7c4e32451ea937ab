"""Recognizes an earlier export of a layout, which is the only file that `--overwrite` overwrites."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from unijudge.errors import DataError
from unijudge.foreign.json_rows import array_rows
from unijudge.foreign.tables import read_rows
from unijudge.formats.inventory import manifest_in
from unijudge.formats.tables import table_name
from unijudge.storage.outputs import replacing
from unijudge.storage.stores import is_file


def replacing_export(
    out: Path, is_own: Callable[[Path], bool], *, overwrite: bool
) -> AbstractContextManager[Path]:
    """Returns a context for writing one file of rows. See `replacing`.

    Args:
        out: The file.
        is_own: Returns whether an existing file has this layout.
        overwrite: Whether to overwrite an existing file.

    Returns:
        A context that yields the path to write to.
    """

    def is_export(path: Path) -> bool:
        if manifest := manifest_in(path.parent):
            raise DataError(
                f"{path}: exists already, as part of a folder of unijudge (with {manifest}) and not as an export. Give "
                "another output"
            )
        return is_file(path) and is_own(path)

    return replacing(out, is_export, "file of rows in this layout", overwrite=overwrite)


def holds_table(path: Path, name: str) -> bool:
    """Returns whether a Parquet file is a table of unijudge with this name."""
    try:
        return table_name(path) == name
    except DataError:
        return False


def holds_rows(path: Path, keys: Iterable[str]) -> bool:
    """Returns whether the first row of a JSONL file has these keys."""
    return _first_has((row for _, row in read_rows(path)), keys)


def holds_array(path: Path, keys: Iterable[str]) -> bool:
    """Returns whether the first element of a file's JSON array has these keys."""
    return _first_has(array_rows(path), keys)


def _first_has(rows: Iterator[Any], keys: Iterable[str]) -> bool:
    try:
        first = next(rows, None)
    except DataError:
        return False
    return isinstance(first, dict) and set(keys) <= set(first)
