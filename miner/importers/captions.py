"""Turns a captioned image into two retrieval tasks: the image finds its captions, and each caption finds the image."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from miner.importers.building.pair import Pair, Unread, readable
from unijudge.foreign.cells import Side

Captioned = tuple[Side, list[str]]
"""An image and its captions; at least one caption."""


def both_ways(
    read: Callable[[Any], Captioned], row: Any, place: str, name: str
) -> Iterator[Pair | Unread]:
    """Yields a row of NAME_i2t, then a row of NAME_t2i for each caption. An unreadable row is yielded as `Unread`.

    The pool of a subset is its closed list: the captions for NAME_i2t, and the images for NAME_t2i. Equal captions of
    two images become a single item.

    Args:
        read: Returns the image and the captions of the row, or raises `Rejected`.
        row: The row as it is in the file.
        place: The file and the number of the row.
        name: The start of the names of both subsets.
    """
    image_to_text = readable(partial(_to_captions, read), row, f"{place}/image", f"{name}_i2t")
    yield image_to_text
    if isinstance(image_to_text, Pair):
        captions = (image_to_text.positive, *image_to_text.more_positives)
        for number, caption in enumerate(captions, start=1):
            yield Pair(
                f"{place}/caption-{number}",
                f"{name}_t2i",
                query=caption,
                positive=image_to_text.query,
            )


def _to_captions(read: Callable[[Any], Captioned], row: Any, place: str, subset: str) -> Pair:
    image, captions = read(row)
    positive, *more = (Side(caption, None) for caption in captions)
    return Pair(place, subset, query=image, positive=positive, more_positives=tuple(more))
