"""Flickr30K and COCO in Karpathy's JSON: captioned images, as two retrieval tasks.

The file is {"images": [{filename, filepath?, split, sentences: [{raw}, …]}, …]}. Each image becomes a query of the
subset NAME_i2t, whose positives are its captions, and each caption a query of NAME_t2i, whose positive is the image
(`captions.py`): evaluate with `pool = "subset"`. Captions stand alone; beside the images stands an instruction, if one
is given.

Source: karpathy/neuraltalk2 and "Deep Visual-Semantic Alignments" (the published dataset_flickr30k.json and
dataset_coco.json).
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from miner.importers.building.pair import Ignored, Row
from miner.importers.captions import Captioned, both_ways
from unijudge.errors import DataError
from unijudge.foreign.cells import Rejected, Side
from unijudge.foreign.json_rows import array_rows
from unijudge.shown import listed

MOST_SPLITS = 100
"""Names of splits that are remembered, and characters of each."""


def read_karpathy(
    path: Path, *, split: str = "test", captions: int = 5, subset: str | None = None, instruction: str | None = None
) -> Iterator[Row]:
    """Yields both directions of every image of a split.

    Args:
        path: The JSON file.
        split: Such as train, restval, val, test.
        captions: The first so many of each image; the usual protocol takes five.
        subset: What both subsets are called; default: the file's name without `dataset_`.
        instruction: The text beside each image.

    Raises:
        DataError: The file cannot be read, breaks off, or has no image of that split.
    """
    name = subset or path.stem.removeprefix("dataset_")
    read = partial(_captioned, captions=captions, instruction=instruction)
    splits: set[str] = set()
    was_there = False
    for number, image in enumerate(array_rows(path, "images"), start=1):
        found = image.get("split") if isinstance(image, dict) else None
        if len(splits) < MOST_SPLITS:
            splits.add(str(found)[:MOST_SPLITS])
        was_there |= found == split
        if found == split:
            yield from both_ways(read, image, f"{path.name}:{number}", name)
        else:
            yield Ignored("images of other splits", f"{path.name}:{number}")
    if not was_there:
        raise DataError(f"{path}: no image has the split {split!r}; there are {listed(splits)}")


def _captioned(image: dict[str, Any], *, captions: int, instruction: str | None) -> Captioned:
    match image:
        case {"filename": str(file), "sentences": [_, *_] as sentences} if file:
            path = f"{image['filepath']}/{file}" if image.get("filepath") else file
        case _:
            raise Rejected("has no filename or no sentences; expected Karpathy's layout")
    texts = [one.get("raw") if isinstance(one, dict) else None for one in sentences[:captions]]
    if not all(isinstance(text, str) for text in texts):
        raise Rejected("a sentence has no raw text; expected Karpathy's layout")
    return Side(instruction, path), [str(text) for text in texts]
