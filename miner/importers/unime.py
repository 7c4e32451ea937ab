"""Reads the training data that UniME-V2 released: rows with ten hard negatives and their judge scores.

The file is a JSON array of objects with the keys query_text, query_image, pos_text, pos_image, query_pos_scores,
hard_negatives (ten of [text, image path]) and hard_negatives_scores. Image paths and markers are those of MMEB-train.
Markers are removed.

The file has no subsets, so the subset of a row is read from its image paths (`images/SUBSET/…`). The negatives were
mined from all subsets, so they are in no subset's pool. Their order is the order of the released walk, which took
every fifth survivor. Select with `stride = 1` to keep this order.

`building/published_scores.py` describes how the scores are stored.

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
        DataError: The file cannot be read or is truncated. The message names the row.
    """
    for number, row in enumerate(array_rows(path), start=1):
        yield readable(_pair, row, f"{path.name}:{number}", _subset(row) or path.stem)


def _pair(row: Any, place: str, subset: str) -> Pair:
    if not isinstance(row, dict) or set(UNIME_KEYS) - set(row):
        raise Rejected(f"is not a row of UniME-V2, which is an object with {UNIME_KEYS}")
    negatives = row["hard_negatives"]
    if not isinstance(negatives, list) or not all(
        _is_text_and_image(negative) for negative in negatives
    ):
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


def _is_text_and_image(negative: Any) -> bool:
    return isinstance(negative, list) and len(negative) == 2


def _side(text: Any, image: Any) -> Side:
    return Side(without_marker(text_of(text)), image_of(image))


def _subset(row: Any) -> str | None:
    """Returns the subset in the path `images/SUBSET/…` of the query's image, or else of the positive's image."""
    for key in ("query_image", "pos_image"):
        image = row.get(key) if isinstance(row, dict) else None
        parts = PurePosixPath(image).parts if isinstance(image, str) else ()
        if len(parts) > 2 and parts[0] == "images":
            return parts[1]
    return None
