"""Flickr30K and COCO in Karpathy's JSON: captioned images, as two retrieval tasks.

The file is {"images": [{filename, filepath?, split, sentences: [{raw}, …]}, …]}. Each image becomes a query of the
subset NAME_i2t, whose positives are its captions, and each caption a query of NAME_t2i, whose positive is the image. A
subset's pool is its closed list: evaluate with `pool = "subset"`. Texts are the bare captions, without instructions;
equal captions of two images are one item.

Source: karpathy/neuraltalk2 and "Deep Visual-Semantic Alignments" (the published dataset_flickr30k.json and
dataset_coco.json).
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from miner.importers.json_rows import array_rows
from miner.importers.rows import Pair, Rejected, Side, Unread, readable
from unijudge.errors import DataError


def read_karpathy(
    path: Path, *, split: str = "test", captions: int = 5, subset: str | None = None
) -> Iterator[Pair | Unread]:
    """Yields both directions of every image of a split.

    Args:
        path: The JSON file.
        split: Such as train, restval, val, test.
        captions: The first so many of each image; the usual protocol takes five.
        subset: What both subsets are called; default: the file's name without `dataset_`.

    Raises:
        DataError: The file cannot be read, breaks off, or has no image of that split.
    """
    name = subset or path.stem.removeprefix("dataset_")
    splits = set()
    for number, image in enumerate(array_rows(path, "images"), start=1):
        found = image.get("split") if isinstance(image, dict) else None
        splits.add(str(found))
        if found == split:
            yield from _both(image, f"{path.name}:{number}", name, captions)
    if split not in splits:
        raise DataError(f"{path}: no image has the split {split!r}; there are {sorted(splits)}")


def _both(image: dict[str, Any], place: str, name: str, captions: int) -> Iterator[Pair | Unread]:
    first = readable(partial(_to_captions, captions=captions), image, f"{place}/image", f"{name}_i2t")
    yield first
    if isinstance(first, Pair):
        for number, caption in enumerate((first.positive, *first.more_positives), start=1):
            yield Pair(f"{place}/caption-{number}", f"{name}_t2i", query=caption, positive=first.query)


def _to_captions(image: dict[str, Any], place: str, subset: str, *, captions: int) -> Pair:
    match image:
        case {"filename": str(file), "sentences": [_, *_] as sentences} if file:
            path = f"{image['filepath']}/{file}" if image.get("filepath") else file
        case _:
            raise Rejected("has no filename or no sentences; expected Karpathy's layout")
    texts = [one.get("raw") if isinstance(one, dict) else None for one in sentences[:captions]]
    if not all(isinstance(text, str) for text in texts):
        raise Rejected("a sentence has no raw text; expected Karpathy's layout")
    positive, *more = (Side(text, None) for text in texts)
    return Pair(place, subset, query=Side(None, path), positive=positive, more_positives=tuple(more))
