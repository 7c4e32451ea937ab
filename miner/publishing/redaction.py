"""Tables that a dataset takes along, without messages that name a place of the machine that scored.

An error is stored as `code: message`. The miner stores no path and no address; what an older version or another program
wrote may hold one: such a message is left out, its code stays.
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
"""A whole path, or a URL; for Python and for Arrow."""
LEFT_OUT = "(its message named a place of the machine that scored)"


def copied_table(source: Path, target: Path, table: Table, stamp: str = "") -> Stored:
    """Copies one file of a table, as it is or, where an error in it names a place, without that message.

    Raises:
        DataError: It cannot be read or written.
    """
    with table.open(source, stamp) as file, reading(source):
        paths = [file.metadata.schema.column(number).path for number in range(file.metadata.num_columns)]
        errors = file.read(columns=[path for path in paths if path.endswith(".error")])
        group = file.metadata.row_group(0).num_rows if file.metadata.num_row_groups else 1
    if not any(pc.any(pc.match_substring_regex(texts, PLACE)).as_py() for texts in _texts(errors)):
        return copied(source, target)
    table.write(target, map(_told, table.read(source, stamp)), rows_in_group=group, stamp=stamp)
    return stored(target)


def _texts(table: pa.Table) -> Iterator[pa.Array]:
    """The columns of text inside of a table's lists and structs."""
    waiting = [column.combine_chunks() for column in table.columns]
    while waiting:
        one = waiting.pop()
        if pa.types.is_list(one.type):
            waiting.append(pc.list_flatten(one))
        elif pa.types.is_struct(one.type):
            waiting += [pc.struct_field(one, name) for name in one.type.names]
        else:
            yield one


def _told(value: Any) -> Any:
    """A row, or what is in it, in which no error names a place."""
    match value:
        case list():
            return [_told(one) for one in value]
        case dict():
            return {name: _message(one) if name == "error" else _told(one) for name, one in value.items()}
    return value


def _message(error: str | None) -> str | None:
    if error is None or not re.search(PLACE, error):
        return error
    return f"{error.partition(':')[0]}: {LEFT_OUT}"
