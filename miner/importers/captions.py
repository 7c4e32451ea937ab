"""A captioned image as two retrieval tasks: the image finds its captions, each caption finds the image."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from miner.importers.building.pair import Pair, Unread, readable
from unijudge.foreign.cells import Side

Captioned = tuple[Side, list[str]]
"""An image, and its captions, at least one."""


def both_ways(read: Callable[[Any], Captioned], row: Any, place: str, name: str) -> Iterator[Pair | Unread]:
    """Yields a row of NAME_i2t, then one of NAME_t2i for each caption; or why the row cannot be read.

    A subset's pool is its closed list: the captions of NAME_i2t, the images of NAME_t2i. Equal captions of two images
    are one item.

    Args:
        read: Makes image and captions of the row, or raises `Rejected`.
        row: As the file holds it.
        place: Where it stands.
        name: What both subsets are called.
    """
    first = readable(partial(_to_captions, read), row, f"{place}/image", f"{name}_i2t")
    yield first
    if isinstance(first, Pair):
        for number, caption in enumerate((first.positive, *first.more_positives), start=1):
            yield Pair(f"{place}/caption-{number}", f"{name}_t2i", query=caption, positive=first.query)


def _to_captions(read: Callable[[Any], Captioned], row: Any, place: str, subset: str) -> Pair:
    image, captions = read(row)
    positive, *more = (Side(caption, None) for caption in captions)
    return Pair(place, subset, query=image, positive=positive, more_positives=tuple(more))
