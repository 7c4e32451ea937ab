"""Copies tables into a dataset without error messages that contain a path or a URL of the machine that scored.

An error is stored as `code: message`. The miner stores no paths and no addresses, but an older version or a different
program may have stored them. Such a message is removed and its code is kept.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from unijudge.formats.datasets import Stored, copied, stored
from unijudge.formats.tables import Table, reading

PLACE = r"""(^|[\s"'(=:,])(/|~/|[A-Za-z]:\\)\S|://"""
"""An absolute path or a URL, as a regular expression for both Python and Arrow."""
LEFT_OUT = "(the message was removed: it contained a path or URL of the machine that scored)"


def copied_table(source: Path, target: Path, table: Table, stamp: str = "") -> Stored:
    """Copies one file of a table. Rewrites the file only if an error message contains a path or a URL.

    Raises:
        DataError: The file cannot be read or written.
    """
    # Only the columns of errors are read, to find out whether the file must be rewritten.
    with table.open(source, stamp) as file, reading(source):
        paths = [
            file.metadata.schema.column(number).path for number in range(file.metadata.num_columns)
        ]
        errors = file.read(columns=[path for path in paths if path.endswith(".error")])
        group = file.metadata.row_group(0).num_rows if file.metadata.num_row_groups else 1
    if not any(pc.any(pc.match_substring_regex(texts, PLACE)).as_py() for texts in _texts(errors)):
        return copied(source, target)

    rows = map(_redacted, table.read(source, stamp))
    table.write(target, rows, rows_in_group=group, stamp=stamp)
    return stored(target)


def _texts(table: pa.Table) -> Iterator[pa.Array]:
    """Yields the columns of text inside a table's lists and structs."""
    stack = [column.combine_chunks() for column in table.columns]
    while stack:
        array = stack.pop()
        if pa.types.is_list(array.type):
            stack.append(pc.list_flatten(array))
        elif pa.types.is_struct(array.type):
            stack += [pc.struct_field(array, name) for name in array.type.names]
        else:
            yield array


def _redacted(value: Any) -> Any:
    """Returns a row, or a part of a row, without error messages that contain a path or a URL."""
    match value:
        case list():
            return [_redacted(part) for part in value]
        case dict():
            return {
                name: _message(part) if name == "error" else _redacted(part)
                for name, part in value.items()
            }
    return value


def _message(error: str | None) -> str | None:
    if error is None or not re.search(PLACE, error):
        return error
    return f"{error.partition(':')[0]}: {LEFT_OUT}"
