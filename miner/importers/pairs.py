"""Reads pairs in Parquet, JSON, JSON lines, CSV or TSV. One row is a query and one of its positives.

The columns are query_text, query_image, positive_text and positive_image. Each side needs a text or an image (a path,
or the bytes of a file). The column subset is optional. The optional column query_id joins several rows into one query
with several positives.

Items that belong to no query are in separate files, with the columns text, image and, optionally, subset.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from miner.importers.building.pair import Pair, Pooled, Row
from miner.importers.tables import table_rows
from unijudge.foreign.cells import Side, id_of, image_of, text_of
from unijudge.foreign.columns import Columns

PAIR_COLUMNS = (
    "query_text",
    "query_image",
    "positive_text",
    "positive_image",
    "subset",
    "query_id",
)
ITEM_COLUMNS = ("text", "image", "subset")


def read_pairs(
    places: Path | Sequence[Path], subset: str | None = None, *, strict: bool = False
) -> Iterator[Row]:
    """Yields the rows of one or more files.

    Args:
        places: Files, folders of files, or patterns.
        subset: The subset of rows without a subset, by default the name of the file or of the files' folder.
        strict: Whether unknown columns are an error.

    Raises:
        DataError: A file has an unknown ending, cannot be read, or has no known column.
    """
    columns = Columns(PAIR_COLUMNS.__contains__, ", ".join(PAIR_COLUMNS), strict)
    yield from table_rows(places, columns, partial(_pair, subset=subset))


def _pair(row: dict[str, Any], place: str, table: str, *, subset: str | None) -> Pair:
    return Pair(
        place=place,
        subset=id_of(row.get("subset")) or subset or table,
        query=Side(text_of(row.get("query_text")), image_of(row.get("query_image"))),
        positive=Side(text_of(row.get("positive_text")), image_of(row.get("positive_image"))),
        query_id=id_of(row.get("query_id")),
    )


def read_items(places: Path | Sequence[Path]) -> Iterator[Row]:
    """Yields items that belong to no query, from one or more files.

    Args:
        places: Files, folders of files, or patterns. The subset of rows without a subset is the name of the file or of
            the files' folder.

    Raises:
        DataError: A file has an unknown ending, cannot be read, or has no known column.
    """
    columns = Columns(ITEM_COLUMNS.__contains__, ", ".join(ITEM_COLUMNS), strict=False)
    yield from table_rows(places, columns, _item)


def _item(row: dict[str, Any], place: str, table: str) -> Pooled:
    item = Side(text_of(row.get("text")), image_of(row.get("image")))
    return Pooled(place, id_of(row.get("subset")) or table, item)
