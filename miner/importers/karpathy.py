"""Reads Flickr30K and COCO in Karpathy's JSON: captioned images, as two retrieval tasks.

The file is {"images": [{filename, filepath?, split, sentences: [{raw}, …]}, …]}. Each image becomes a query of the
subset NAME_i2t, whose positives are its captions. Each caption becomes a query of NAME_t2i, whose positive is the image
(see `captions.py`). Evaluate with `pool = "subset"`. An instruction, if given, is added to images but not to captions.

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
"""Largest number of splits in a message, and of characters in the name of each split."""


def read_karpathy(
    path: Path,
    *,
    split: str = "test",
    captions: int = 5,
    subset: str | None = None,
    instruction: str | None = None,
) -> Iterator[Row]:
    """Yields both directions of every image of a split.

    Args:
        path: The JSON file.
        split: The split to read, such as train, restval, val or test.
        captions: Number of captions to read of each image. The usual protocol uses five.
        subset: The start of the names of both subsets, by default the file's name without `dataset_`.
        instruction: The text of each image.

    Raises:
        DataError: The file cannot be read, is truncated, or has no image of the split.
    """
    name = subset or path.stem.removeprefix("dataset_")
    read = partial(_captioned, captions=captions, instruction=instruction)
    splits: set[str] = set()
    has_split = False
    for number, image in enumerate(array_rows(path, "images"), start=1):
        image_split = image.get("split") if isinstance(image, dict) else None
        if len(splits) < MOST_SPLITS:
            splits.add(str(image_split)[:MOST_SPLITS])
        if image_split == split:
            has_split = True
            yield from both_ways(read, image, f"{path.name}:{number}", name)
        else:
            yield Ignored("images of other splits", f"{path.name}:{number}")
    if not has_split:
        raise DataError(
            f"{path}: no image has the split {split!r}. Give one of the splits {listed(splits)}"
        )


def _captioned(image: dict[str, Any], *, captions: int, instruction: str | None) -> Captioned:
    match image:
        case {"filename": str(file), "sentences": [_, *_] as sentences} if file:
            path = f"{image['filepath']}/{file}" if image.get("filepath") else file
        case _:
            raise Rejected("has no filename or no sentences, which Karpathy's layout requires")
    texts = [
        sentence.get("raw") if isinstance(sentence, dict) else None
        for sentence in sentences[:captions]
    ]
    if not all(isinstance(text, str) for text in texts):
        raise Rejected("has a sentence without raw text, which Karpathy's layout requires")
    return Side(instruction, path), [str(text) for text in texts]
