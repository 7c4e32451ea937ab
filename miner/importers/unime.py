"""The training data that UniME-V2 released: rows with ten hard negatives, and what their judge gave each.

One JSON array. Keys: query_text, query_image, pos_text, pos_image, query_pos_scores, hard_negatives (ten of [text,
image path]), hard_negatives_scores. Image paths are those of MMEB-train, and so are the markers, which are stripped.
The file names no subsets: a row's is read from its image paths (`images/SUBSET/…`). Its negatives were mined from all
subsets, so they enter no subset's pool. They stand in the order of the released walk, which took every fifth
survivor: select with `stride = 1` to keep it.

What the scores become: `building/published_scores.py`.

Source: TianchengGu/UniME-V2-Training-Datasets on the Hugging Face hub; arXiv 2510.13515.
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from miner.importers.building.pair import Pair, Unread, readable
from miner.importers.building.published_scores import scores_of
from unijudge.foreign.cells import Rejected, Side, image_of, text_of
from unijudge.foreign.json_rows import array_rows
from unijudge.foreign.layouts import without_marker

UNIME_KEYS = [
    "query_text", "query_image", "pos_text", "pos_image", "query_pos_scores", "hard_negatives", "hard_negatives_scores",
]  # fmt: skip


def read_unime(path: Path) -> Iterator[Pair | Unread]:
    """Yields the rows of one released file, with their scores.

    Raises:
        DataError: It cannot be read, or breaks off; the row is named.
    """
    for number, row in enumerate(array_rows(path), start=1):
        yield readable(_pair, row, f"{path.name}:{number}", _subset(row) or path.stem)


def _pair(row: Any, place: str, subset: str) -> Pair:
    if not isinstance(row, dict) or set(UNIME_KEYS) - set(row):
        raise Rejected(f"not a row of UniME-V2; expected an object with {UNIME_KEYS}")
    negatives = row["hard_negatives"]
    if not isinstance(negatives, list) or any(not isinstance(one, list) or len(one) != 2 for one in negatives):
        raise Rejected("hard_negatives is not a list of [text, image path]")
    return Pair(
        place,
        subset,
        query=_side(row["query_text"], row["query_image"]),
        positive=_side(row["pos_text"], row["pos_image"]),
        negatives=tuple(_side(*negative) for negative in negatives),
        pooled=False,
        scores=scores_of([row["query_pos_scores"], *scores_of(row["hard_negatives_scores"])]),
    )


def _side(text: Any, image: Any) -> Side:
    return Side(without_marker(text_of(text)), image_of(image))


def _subset(row: Any) -> str | None:
    """From `images/SUBSET/…`, of the query's image or of the positive's."""
    for key in ("query_image", "pos_image"):
        image = row.get(key) if isinstance(row, dict) else None
        parts = PurePosixPath(image).parts if isinstance(image, str) else ()
        if len(parts) > 2 and parts[0] == "images":
            return parts[1]
    return None
