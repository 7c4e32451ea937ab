"""Reads ShareGPT4V's captions as in Long-CLIP's evaluation: a JSON file's first thousand images, in both directions.

The file is [{id, image, conversations: [{from: human, value}, {from: gpt, value}]}, …]. The second turn is the caption,
and its line breaks become spaces. Image names are relative to the folder that holds coco/, sam/ and similar folders.

Source: Lin-Chen/ShareGPT4V on the Hugging Face hub (share-captioner_coco_lcs_sam_1246k_1107.json); the protocol:
`train/sharegpt4v.py` of beichenzbc/Long-CLIP on GitHub.
"""

from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from miner.importers.building.pair import Pair, Unread
from miner.importers.captions import Captioned, both_ways
from unijudge.foreign.cells import Rejected, Side
from unijudge.foreign.json_rows import array_rows


def read_sharegpt4v(
    path: Path, *, first: int = 1000, subset: str = "sharegpt4v", instruction: str | None = None
) -> Iterator[Pair | Unread]:
    """Yields both directions of the first images. The rest of the file is not read.

    Args:
        path: The JSON file.
        first: Number of images to read.
        subset: The start of the names of both subsets.
        instruction: The text of each image.

    Raises:
        DataError: The file cannot be read, or is truncated before the last image.
    """
    read = partial(_captioned, instruction=instruction)
    for number, row in enumerate(islice(array_rows(path), first), start=1):
        yield from both_ways(read, row, f"{path.name}:{number}", subset)


def _captioned(row: Any, *, instruction: str | None) -> Captioned:
    match row:
        case {"image": str(image), "conversations": [_, {"value": str(caption)}, *_]} if (
            image and caption
        ):
            return Side(instruction, image), [caption.replace("\n", " ")]
    raise Rejected(
        "has no image or no caption in its second turn, which ShareGPT4V's layout requires"
    )
