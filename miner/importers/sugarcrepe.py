"""SugarCrepe: an image, its caption, and a caption that says nearly the same and is wrong.

Seven JSON files (add_att, add_obj, replace_att, replace_obj, replace_rel, swap_att, swap_obj), each an object of
number → {filename, caption, negative_caption}; a file is a subset. The images are those of COCO's val2017. The closed
candidate list of a query is its two captions, the right one first.

Source: RAIVNLab/sugar-crepe on GitHub.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from miner.importers.building.pair import Pair, Unread, readable
from unijudge.errors import DataError
from unijudge.foreign.cells import Side
from unijudge.foreign.json_rows import object_rows
from unijudge.foreign.layouts import sugarcrepe_row
from unijudge.storage.listing import foreign_files


def read_sugarcrepe(folder: Path, *, instruction: str | None = None) -> Iterator[Pair | Unread]:
    """Yields the rows of every JSON file of a folder.

    Args:
        folder: What holds the seven files.
        instruction: The text beside each image.

    Raises:
        DataError: It has none, or one that cannot be read or breaks off.
    """
    paths = foreign_files(folder, "*.json")
    if not paths:
        raise DataError(f"{folder}: no JSON files; expected the data folder of SugarCrepe")
    for path in paths:
        for number, row in object_rows(path):
            yield readable(partial(_pair, instruction), row, f"{path.name}:{number}", path.stem)


def _pair(instruction: str | None, row: Any, place: str, subset: str) -> Pair:
    name, caption, negative = sugarcrepe_row(row)
    captions = Side(caption, None), Side(negative, None)
    return Pair(place, subset, Side(instruction, name), captions[0], candidates=captions)
