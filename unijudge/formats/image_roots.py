"""Where a corpus has its pictures: the root, and the names under it. Strangers may have written both."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from unijudge.errors import DataError
from unijudge.shown import shown
from unijudge.storage.files import read_text
from unijudge.storage.locations import inside_store, is_local
from unijudge.storage.names import OUTSIDE
from unijudge.storage.stores import exists

MANIFEST = "dataset.json"
"""Of a scored dataset, of which a corpus may be a part; see `unijudge/formats/datasets.py`."""
UNFINISHED = "dataset.unfinished.json"
"""What a dataset's `pull` is fetching, until it is whole."""
PUBLISHED_IMAGES = "../images"
"""Where a dataset's corpus has its pictures, and nowhere else."""


def image_root(folder: Path, images: str) -> Path:
    """The place that a corpus names as its image root.

    Raises:
        DataError: The corpus is part of a dataset, and the place is outside of it.
    """
    published = any(_lists_corpus(folder.parent / name) for name in (MANIFEST, UNFINISHED))
    if published and images != PUBLISHED_IMAGES:
        raise DataError(
            f"{folder}: is part of a dataset, whose images lie in {PUBLISHED_IMAGES}, but it names {shown(images)}, "
            "from which nothing was read; ask who published it"
        )
    return inside_store(folder, images) if "://" in images else (folder / images).resolve()


def _lists_corpus(path: Path) -> bool:
    """Whether a file is the manifest of a dataset; others have files of these names too, as Karpathy's splits.

    Raises:
        DataError: It is there, and cannot be read.
    """
    if not exists(path):
        return False
    try:
        files = json.loads(read_text(path))["files"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return False
    return isinstance(files, dict) and "corpus/corpus.json" in files


def root_name(images: Path, folder: Path) -> str:
    """The image root as a corpus names it: relative, unless only one of the two is in an object store."""
    if is_local(images) and is_local(folder):
        return os.path.relpath(images.resolve(), folder.resolve())
    if not is_local(images) and images.is_relative_to(folder):
        return images.relative_to(folder).as_posix()
    if is_local(images):
        raise DataError(f"{folder}: is in an object store, but its images ({images}) are not; put them there first")
    return str(images)


def check_names(folder: Path, tables: Mapping[str, pa.Table]) -> None:
    """Refuses tables whose image names lead out of the image root: a name decides which file is read.

    Raises:
        DataError: One does; it is named.
    """
    for kind, table in tables.items():
        names = table["image"]
        place = int(pc.index(pc.match_substring_regex(names, OUTSIDE), True).as_py())
        if place >= 0:
            name = shown(names[place].as_py())
            raise DataError(
                f"{folder / kind}.parquet: row {place}: image {name} is not a path inside the image root, so nothing "
                "was read; import again, or ask who made this corpus"
            )
