"""sentence-transformers: a Parquet file of the columns query, positive, negative_1 …, and label.

`label` is the judge's [score of the positive, of negative_1, …], what the library's losses take from a teacher: in
DistillKLDivLoss a teacher temperature of 0.02 makes UniME-V2's targets. Cells are strings where the corpus has no
image. Elsewhere they are {image: [path], text: [text]}, each list of one element or none: one Arrow type for pictures,
texts and both, in which what is absent is no null, which the library would take for an input. Models with a chat
template (the multimodal LLMs) take them; a text that looks like a path stays a text.

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
"""The strings that a model of pictures takes for more than texts."""
TABLE = "sentence-transformers"
"""What the file calls its own table."""
MULTIMODAL = pa.struct([("image", pa.list_(pa.string())), ("text", pa.list_(pa.string()))])


def export_sentence_transformers(
    rows: TrainingRows, out: Path, *, negatives: int | None = None, scores: bool = True
) -> None:
    """Writes one Parquet file.

    Args:
        rows: The selection.
        out: Ends in .parquet.
        negatives: In every row; default: as many as the selection stores. A row with fewer distinct ones is left out.
        scores: Whether to write `label`.

    Raises:
        SettingsError: More negatives than the rows have, or another ending.
        DataError: A score is wanted of a pair without verdict, `out` exists, or a folder is damaged.
    """
    check_out(out, ".parquet")
    wanted = rows.manifest.negatives_in_row if negatives is None else negatives
    rows.check_negatives(wanted)
    pictures = any(entry.image for entries in (rows.corpus.queries, rows.corpus.items) for entry in entries)
    names = ["query", "positive", *(f"negative_{number}" for number in range(1, wanted + 1))]
    columns = [(name, MULTIMODAL if pictures else pa.string()) for name in names]
    schema = pa.schema([*columns, ("label", pa.list_(pa.float32()))] if scores else columns)
    table = Table(TABLE, 1, schema)
    table.write(out, rows.export(lambda row: _columns(rows, row, schema, wanted)))


def _columns(rows: TrainingRows, row: TrainingRow, schema: pa.Schema, wanted: int) -> dict[str, Any]:
    candidates = [row.positive, *row.distinct_negatives[:wanted]]
    if len(candidates) <= wanted:
        raise LeftOut(f"fewer than {wanted} distinct negatives")
    entries: list[Query | Item] = [row.query, *(candidate.item for candidate in candidates)]
    if schema.field("query").type != MULTIMODAL and any(MEDIA_URL.match(entry.text or "") for entry in entries):
        raise LeftOut("a text is the address of a picture, a film or a sound, which the library would fetch")
    made: dict[str, Any] = {}
    for column, entry in zip(schema, entries, strict=False):  # the label has no entry
        made[column.name] = _cell(rows, entry, column.type)
    if "label" in schema.names:
        made["label"] = [rows.score(row, candidate) for candidate in candidates]
    return made


def _cell(rows: TrainingRows, entry: Query | Item, kind: pa.DataType) -> str | dict[str, list[str]]:
    if kind != MULTIMODAL:
        return entry.text or ""
    image = rows.image(entry)
    return {"image": [] if image is None else [image], "text": [entry.text] if entry.text else []}
