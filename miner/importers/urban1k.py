"""Reads Urban1K: a thousand street scenes with a long caption each, in both directions.

The folder holds image/NAME.jpg and caption/NAME.txt. The caption is the first line of its file. An image without a
caption is not read. A caption without an image is a rejected row.

Source: Urban1k.zip of BeichenZhang/Urban1k on the Hugging Face hub; `eval/retrieval/Urban1k.py` of beichenzbc/Long-CLIP
on GitHub.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from miner.importers.building.pair import Pair, Unread
from miner.importers.captions import Captioned, both_ways
from unijudge.errors import DataError
from unijudge.foreign.cells import Rejected, Side
from unijudge.storage.files import read_text
from unijudge.storage.listing import foreign_files


def read_urban1k(
    folder: Path, *, subset: str = "urban1k", instruction: str | None = None
) -> Iterator[Pair | Unread]:
    """Yields both directions of every caption file, in order of name. Image names are relative to `folder / "image"`.

    Args:
        folder: The folder that holds image/ and caption/.
        subset: The start of the names of both subsets.
        instruction: The text of each image.

    Raises:
        DataError: There are no caption files, or a caption file cannot be read.
    """
    paths = foreign_files(folder / "caption", "*.txt")
    if not paths:
        raise DataError(
            f"{folder}: has no caption/*.txt. Give the folder of Urban1K, with image/ and caption/"
        )
    for path in paths:
        yield from both_ways(partial(_captioned, instruction=instruction), path, path.name, subset)


def _captioned(path: Path, *, instruction: str | None) -> Captioned:
    # Not splitlines: a caption may contain other line breaks, as U+2028.
    first = read_text(path).partition("\n")[0]
    if not first.strip():
        raise Rejected("has no caption in its first line")
    return Side(instruction, f"{path.stem}.jpg"), [first]
