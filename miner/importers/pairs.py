"""Pairs in Parquet, JSON, JSON lines, CSV or TSV: one row is a query and one of its positives.

Columns: query_text, query_image, positive_text, positive_image (each side needs a text or an image: a path, or the
bytes of a file); optionally subset, and query_id, which joins several rows into one query with several positives.

Items that belong to no query have files of their own, with the columns text, image and, optionally, subset.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from miner.importers.building.pair import Pair, Pooled, Row
from miner.importers.tables import table_rows
from unijudge.foreign.cells import Side, id_of, image_of, text_of
from unijudge.foreign.tables import Columns

PAIR_COLUMNS = ("query_text", "query_image", "positive_text", "positive_image", "subset", "query_id")
ITEM_COLUMNS = ("text", "image", "subset")


def read_pairs(places: Path | Sequence[Path], subset: str | None = None, *, strict: bool = False) -> Iterator[Row]:
    """Yields the rows of one or more files.

    Args:
        places: Files, folders of files, or patterns.
        subset: The name of rows that have none of their own; default: the file's name, or that of the files' folder.
        strict: Whether columns that are not known are an error.

    Raises:
        DataError: Another ending, unreadable, or no column that is known.
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
        places: Files, folders of files, or patterns. Rows without a subset have the file's name, or that of the files'
            folder.

    Raises:
        DataError: Another ending, unreadable, or no column that is known.
    """
    yield from table_rows(places, Columns(ITEM_COLUMNS.__contains__, ", ".join(ITEM_COLUMNS), strict=False), _item)


def _item(row: dict[str, Any], place: str, table: str) -> Pooled:
    return Pooled(place, id_of(row.get("subset")) or table, Side(text_of(row.get("text")), image_of(row.get("image"))))
