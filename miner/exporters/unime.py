r"""Exports for UniME-V2: a JSON array of rows with the seven keys of the released training data, with judge scores.

An image is a path under the corpus' root, with the marker `<|image_1|>\n` before the text. Every row has the same
number of negatives including duplicates, as in the released file, because the reader takes the number from the first
row. A row is left out if one of its texts contains the marker, because the reader would expect an image.

Source: GaryGuTC/UniME-v2, data/example_data.json.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from miner.exporters.training_rows import LeftOut, TrainingRow, TrainingRows, check_out
from unijudge.foreign.layouts import MARKER
from unijudge.formats.corpus import Item, Query
from unijudge.storage.files import publishing


def export_unime(rows: TrainingRows, out: Path, *, negatives: int = 10) -> None:
    """Writes one JSON file.

    Args:
        rows: The selection.
        out: A file that ends in .json.
        negatives: The number of negatives in every row. Rows with fewer negatives are left out.

    Raises:
        SettingsError: `negatives` is more than the rows have, or `out` has a different ending.
        DataError: A pair has no verdict, `out` exists, or a folder is damaged.
    """
    check_out(out, ".json")
    rows.check_negatives(negatives)
    with publishing(out) as draft, draft.open("w", encoding="utf-8", newline="\n") as file:
        for piece in _array(rows.export(lambda row: _object(rows, row, negatives))):
            file.write(piece)


def _array(objects: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Yields the text of a JSON array, one element at a time."""
    before = "[\n"
    for element in objects:
        yield before + json.dumps(element, ensure_ascii=False)
        before = ",\n"
    yield "\n]\n"


def _object(rows: TrainingRows, row: TrainingRow, wanted: int) -> dict[str, Any]:
    negatives = row.negatives[:wanted]
    if len(negatives) < wanted:
        raise LeftOut(f"fewer than {wanted} negatives")
    if row.holds([MARKER]):
        raise LeftOut(f"a text contains {MARKER}")
    return {
        "query_text": _text(row.query),
        "query_image": row.query.image or "",
        "pos_text": _text(row.positive.item),
        "pos_image": row.positive.item.image or "",
        "query_pos_scores": rows.score(row, row.positive),
        "hard_negatives": [
            [_text(negative.item), negative.item.image or ""] for negative in negatives
        ],
        "hard_negatives_scores": [rows.score(row, negative) for negative in negatives],
    }


def _text(entry: Query | Item) -> str:
    text = entry.text or ""
    return f"{MARKER}\n{text}" if entry.image else text
