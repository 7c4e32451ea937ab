"""Reads SugarCrepe: an image, its caption, and a similar caption that is wrong.

There are seven JSON files (add_att, add_obj, replace_att, replace_obj, replace_rel, swap_att, swap_obj), one for each
subset. Each file is an object of number → {filename, caption, negative_caption}. The images are those of COCO's
val2017. The closed list of a query holds its two captions, the right caption first.

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
        folder: The folder of the seven files.
        instruction: The text of each image.

    Raises:
        DataError: The folder has no JSON file, or a file cannot be read or is truncated.
    """
    paths = foreign_files(folder, "*.json")
    if not paths:
        raise DataError(f"{folder}: has no JSON files. Give the data folder of SugarCrepe")
    for path in paths:
        for number, row in object_rows(path):
            yield readable(partial(_pair, instruction), row, f"{path.name}:{number}", path.stem)


def _pair(instruction: str | None, row: Any, place: str, subset: str) -> Pair:
    name, caption, negative_caption = sugarcrepe_row(row)
    query = Side(instruction, name)
    positive = Side(caption, None)
    negative = Side(negative_caption, None)
    return Pair(place, subset, query, positive, candidates=(positive, negative))
