"""Exports for Tevatron 2: a folder `queries` whose rows refer to documents, and a folder `corpus` of documents.

    --dataset_name OUT/queries --corpus_name OUT/corpus

The files are Parquet with the Image type of the `datasets` library, which opens the image paths. The id of a document
is its row number, because early versions of the loader use the id as a row number. The column `item_id` holds the id of
the item in the corpus. Duplicate negatives are not written. There are no scores, because a document belongs to several
queries.

Source: texttron/tevatron, its retriever's dataset, version 2, and the published Tevatron data sets.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from miner.exporters.training_rows import TrainingRow, TrainingRows, check_free
from unijudge.errors import DataError
from unijudge.formats.corpus import Item, Query
from unijudge.formats.tables import Table, table_name
from unijudge.storage.files import publishing_folder
from unijudge.storage.outputs import check_only

STRING = (pa.string(), {"_type": "Value", "dtype": "string"})
STRINGS = (pa.list_(pa.string()), {"_type": "Sequence", "feature": STRING[1]})
IMAGE = (pa.struct([("bytes", pa.binary()), ("path", pa.string())]), {"_type": "Image"})


def _table(name: str, columns: dict[str, tuple[pa.DataType, dict[str, Any]]]) -> Table:
    """Returns a table whose metadata also describe its columns for the `datasets` library."""
    fields = []
    features = {}
    for column, (kind, feature) in columns.items():
        fields.append((column, kind))
        features[column] = feature
    info = {"info": {"features": features}}
    schema = pa.schema(fields, metadata={"huggingface": json.dumps(info)})
    return Table(name, 1, schema)


TEVATRON_QUERIES = _table(
    "tevatron-queries",
    {
        "query_id": STRING,
        "query_text": STRING,
        "query_image": IMAGE,
        "positive_document_ids": STRINGS,
        "negative_document_ids": STRINGS,
        "source": STRING,
    },
)
TEVATRON_DOCUMENTS = _table(
    "tevatron-corpus", {"docid": STRING, "text": STRING, "image": IMAGE, "item_id": STRING}
)


def export_tevatron(rows: TrainingRows, out: Path, *, extra_positives: bool = False) -> None:
    """Writes the two folders.

    Args:
        rows: The selection.
        out: A folder that does not exist yet.
        extra_positives: Whether the candidates that score at least as high as the positive are positives too.

    Raises:
        DataError: `out` exists, a folder is damaged, or no row is left.
    """
    check_free(out)
    with publishing_folder(out) as draft:
        TEVATRON_QUERIES.write(
            draft / "queries" / "train.parquet",
            rows.export(lambda row: _query(rows, row, extra_positives)),
        )
        TEVATRON_DOCUMENTS.write(draft / "corpus" / "train.parquet", _documents(rows))


def is_tevatron(folder: Path) -> bool:
    """Returns whether a folder is an export for Tevatron and holds nothing else.

    Raises:
        DataError: The folder is an export for Tevatron, but also holds other files.
    """
    files = {"queries/train.parquet": TEVATRON_QUERIES, "corpus/train.parquet": TEVATRON_DOCUMENTS}
    try:
        own = all(table_name(folder / name) == table.name for name, table in files.items())
    except DataError:
        return False
    if own:
        check_only(folder, files.__contains__)
    return own


def _query(rows: TrainingRows, row: TrainingRow, extra_positives: bool) -> dict[str, Any]:
    positives = [row.positive]
    if extra_positives:
        positives += row.extra_positives
    return {
        "query_id": row.query.query_id,
        "query_text": row.query.text or "",
        "query_image": _image(rows, row.query),
        "positive_document_ids": [str(candidate.row) for candidate in positives],
        "negative_document_ids": [str(candidate.row) for candidate in row.distinct_negatives],
        "source": row.query.subset,
    }


def _documents(rows: TrainingRows) -> Iterator[dict[str, Any]]:
    for number, item in enumerate(rows.corpus.items):
        image = _image(rows, item)
        yield {
            "docid": str(number),
            "text": item.text or "",
            "image": image,
            "item_id": item.item_id,
        }


def _image(rows: TrainingRows, entry: Query | Item) -> dict[str, Any] | None:
    path = rows.image(entry)
    return None if path is None else {"bytes": None, "path": path}
