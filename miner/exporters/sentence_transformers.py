"""Exports for sentence-transformers: a Parquet file with the columns query, positive, negative_1 …, and label.

`label` holds the judge's scores of the positive, of negative_1 and so on, as the library's losses expect of a teacher.
With DistillKLDivLoss, a teacher temperature of 0.02 gives UniME-V2's targets.

Cells are strings if the corpus has no images. Otherwise cells are {image: [path], text: [text]}, with lists of zero or
one element. This is one Arrow type for images, texts and both, without nulls, which the library would use as inputs.
Models with a chat template (the multimodal LLMs) accept such cells, and a text that looks like a path stays a text.

Source: the pages "Input Formats", "Dataset Overview" and "Loss Overview" of sbert.net, version 6.2.
"""

import re
from pathlib import Path
from typing import Any

import pyarrow as pa

from miner.exporters.training_rows import LeftOut, TrainingRow, TrainingRows, check_out
from unijudge.formats.corpus import Item, Query
from unijudge.formats.tables import Table

MEDIA_URL = re.compile(
    r"data:image/|https?://("
    r"[^ ?#]*\.(jpe?g|png|gif|bmp|tiff|webp|mp4|avi|mov|wmv|flv|mkv|mp3|wav|ogg|flac|aac)([?#][^ ]*)?$"
    r"|(www\.|m\.)?(youtube\.com|youtu\.be)(/[^ ]*)?$)",
    re.IGNORECASE,
)
"""Texts that the library would treat as URLs of images, videos or sounds."""
TABLE = "sentence-transformers"
"""The name of the table in the file."""
MULTIMODAL = pa.struct([("image", pa.list_(pa.string())), ("text", pa.list_(pa.string()))])


def export_sentence_transformers(
    rows: TrainingRows, out: Path, *, negatives: int | None = None, scores: bool = True
) -> None:
    """Writes one Parquet file.

    Args:
        rows: The selection.
        out: A file that ends in .parquet.
        negatives: The number of negatives in every row, by default as many as the selection stored. Rows with fewer
            distinct negatives are left out.
        scores: Whether to write `label`.

    Raises:
        SettingsError: `negatives` is more than the rows have, or `out` has a different ending.
        DataError: A pair without a verdict needs a score, `out` exists, or a folder is damaged.
    """
    check_out(out, ".parquet")
    wanted = rows.manifest.negatives_in_row if negatives is None else negatives
    rows.check_negatives(wanted)

    # All cells have one type, so a single image in the corpus makes all cells multimodal.
    query_images = any(query.image for query in rows.corpus.queries)
    has_images = query_images or any(item.image for item in rows.corpus.items)
    cell_type = MULTIMODAL if has_images else pa.string()
    names = ["query", "positive", *(f"negative_{number}" for number in range(1, wanted + 1))]
    columns = [(name, cell_type) for name in names]
    if scores:
        columns.append(("label", pa.list_(pa.float32())))
    schema = pa.schema(columns)
    table = Table(TABLE, 1, schema)
    table.write(out, rows.export(lambda row: _cells(rows, row, schema, wanted)))


def _cells(rows: TrainingRows, row: TrainingRow, schema: pa.Schema, wanted: int) -> dict[str, Any]:
    """Returns column → cell for one training row."""
    candidates = [row.positive, *row.distinct_negatives[:wanted]]
    if len(candidates) <= wanted:
        raise LeftOut(f"fewer than {wanted} distinct negatives")

    # In multimodal cells, a URL in the place of a text stays a text.
    entries: list[Query | Item] = [row.query, *(candidate.item for candidate in candidates)]
    texts_only = schema.field("query").type != MULTIMODAL
    if texts_only and any(MEDIA_URL.match(entry.text or "") for entry in entries):
        raise LeftOut(
            "a text is the URL of an image, a video or a sound, which the library would download"
        )

    # The label is the last column and has no entry.
    cells: dict[str, Any] = {}
    for column, entry in zip(schema, entries, strict=False):
        cells[column.name] = _cell(rows, entry, column.type)
    if "label" in schema.names:
        cells["label"] = [rows.score(row, candidate) for candidate in candidates]
    return cells


def _cell(rows: TrainingRows, entry: Query | Item, kind: pa.DataType) -> str | dict[str, list[str]]:
    if kind != MULTIMODAL:
        return entry.text or ""
    image = rows.image(entry)
    images = [] if image is None else [image]
    texts = [entry.text] if entry.text else []
    return {"image": images, "text": texts}
