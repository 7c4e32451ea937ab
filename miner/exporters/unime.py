r"""UniME-V2: one JSON array of rows with the seven keys of the released training data, and judge scores in them.

An image is a path under the corpus' root, and `<|image_1|>\n` stands before the text where there is one. Every row has
the same number of negatives, those that fill it up included, as in the released file: its reader takes the number from
the first row. A text that contains the marker itself would be read as one with a picture: its row is left out.

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
        out: Ends in .json.
        negatives: In every row; a row with fewer is left out.

    Raises:
        SettingsError: More negatives than the rows have, or another ending.
        DataError: A pair has no verdict, `out` exists, or a folder is damaged.
    """
    check_out(out, ".json")
    rows.check_negatives(negatives)
    with publishing(out) as draft, draft.open("w", encoding="utf-8", newline="\n") as file:
        for piece in _array(rows.export(lambda row: _object(rows, row, negatives))):
            file.write(piece)


def _array(objects: Iterable[dict[str, Any]]) -> Iterator[str]:
    """The text of a JSON array, an element at a time."""
    before = "[\n"
    for one in objects:
        yield before + json.dumps(one, ensure_ascii=False)
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
        "hard_negatives": [[_text(one.item), one.item.image or ""] for one in negatives],
        "hard_negatives_scores": [rows.score(row, one) for one in negatives],
    }


def _text(entry: Query | Item) -> str:
    return (f"{MARKER}\n" if entry.image else "") + (entry.text or "")
