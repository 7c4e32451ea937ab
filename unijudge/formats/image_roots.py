"""The root of a corpus's pictures, and the names under that root. Strangers may have written both."""

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
"""The manifest of a scored dataset, of which a corpus may be a part; see `unijudge/formats/datasets.py`."""
UNFINISHED = "dataset.unfinished.json"
"""The manifest of a dataset that `pull` has not yet downloaded completely."""
PUBLISHED_IMAGES = "../images"
"""The only allowed image root of a corpus in a dataset."""


def image_root(folder: Path, images: str) -> Path:
    """Returns the image root that a corpus names.

    Raises:
        DataError: The corpus is part of a dataset, and the image root is outside the dataset.
    """
    published = any(_lists_corpus(folder.parent / name) for name in (MANIFEST, UNFINISHED))
    if published and images != PUBLISHED_IMAGES:
        raise DataError(
            f"{folder}: is part of a dataset, whose images are in {PUBLISHED_IMAGES}, but it names {shown(images)}, "
            "so nothing was read. Ask the publisher of the dataset"
        )
    return inside_store(folder, images) if "://" in images else (folder / images).resolve()


def _lists_corpus(path: Path) -> bool:
    """Whether a file is the manifest of a dataset. Other data, such as Karpathy's splits, has a dataset.json too.

    Raises:
        DataError: The file exists, but cannot be read.
    """
    if not exists(path):
        return False
    try:
        files = json.loads(read_text(path))["files"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return False
    return isinstance(files, dict) and "corpus/corpus.json" in files


def root_name(images: Path, folder: Path) -> str:
    """Returns the image root for corpus.json: a relative path where possible, else a URL.

    Raises:
        DataError: The corpus is in an object store, but the images are not.
    """
    if is_local(images) and is_local(folder):
        return os.path.relpath(images.resolve(), folder.resolve())
    if not is_local(images) and images.is_relative_to(folder):
        return images.relative_to(folder).as_posix()
    if is_local(images):
        raise DataError(
            f"{folder}: is in an object store, but its images ({images}) are not. Copy them there first"
        )
    return str(images)


def check_names(folder: Path, tables: Mapping[str, pa.Table]) -> None:
    """Refuses tables with image names that lead out of the image root, because a name decides which file is read.

    Raises:
        DataError: A name leads out of the image root; the message has the name.
    """
    for kind, table in tables.items():
        names = table["image"]
        row = int(pc.index(pc.match_substring_regex(names, OUTSIDE), True).as_py())
        if row >= 0:
            name = shown(names[row].as_py())
            raise DataError(
                f"{folder / kind}.parquet: row {row}: image {name} is not a path inside the image root, so nothing was "
                "read. Import again, or ask the maker of this corpus"
            )
