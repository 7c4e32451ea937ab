"""The rows of CSV and TSV files."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from unijudge.errors import DataError
from unijudge.foreign.columns import Columns, Numbered, check_distinct
from unijudge.foreign.json_rows import LONGEST_ROW
from unijudge.storage.texts import open_text


def csv_rows(path: Path, columns: Columns | None, separator: str = ",") -> Numbered:
    """Yields the rows of a CSV file, each with the line where the row begins.

    Raises:
        DataError: The separator is another one, a row has too many or too few fields, or its quotation marks are not in
            pairs.
    """
    csv.field_size_limit(LONGEST_ROW)
    with open_text(path, newline="") as file:
        rows = _fields(path, csv.reader(file, delimiter=separator, strict=True))
        _, first = next(rows, (0, []))
        names = [name.strip() for name in first]
        _check_separator(path, names, separator)
        known = names if columns is None else columns.known_of(path, names)
        check_distinct(path, known)
        for line, fields in rows:
            if fields and len(fields) != len(names):
                raise DataError(
                    f"{path}:{line}: {len(fields)} fields, but the first line has {len(names)} names. Put quotes "
                    "around fields with separators in them"
                )
            if fields:
                yield (
                    line,
                    {name: cell for name, cell in zip(names, fields, strict=True) if name in known},
                )


def _fields(path: Path, reader: Any) -> Iterator[tuple[int, list[str]]]:
    """Yields the fields of each row, and the line where the row begins.

    Raises:
        DataError: A quotation mark opens a field and no mark closes this field, so the next rows would be its text.
    """
    line = 1
    try:
        for fields in reader:
            yield line, fields
            line = reader.line_num + 1
    except csv.Error as error:
        if "field limit" in str(error):
            raise
        raise DataError(
            f"{path}:{line}: the quotation marks of that row are not in pairs ({error}). Inside a field write each "
            "mark twice, and put a mark before and after the field"
        ) from error


def tsv_rows(path: Path, columns: Columns | None) -> Numbered:
    """Yields the rows of a TSV file, as `csv_rows` does."""
    return csv_rows(path, columns, "\t")


def _check_separator(path: Path, names: Sequence[str], separator: str) -> None:
    kinds = {";": "semicolons", "\t": "tabs", "|": "bars", ",": "commas"}
    found = next(
        (mark for mark in kinds if mark != separator and len(names) == 1 and mark in names[0]), None
    )
    if found:
        raise DataError(
            f"{path}: its columns are separated by {kinds[found]}, not by {kinds[separator]}. Save it with "
            f"{kinds[separator]}" + (", or rename it to .tsv" if found == "\t" else "")
        )
