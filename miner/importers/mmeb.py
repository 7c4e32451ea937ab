"""Reads MMEB in its published layouts: a folder for each subset, with files `SPLIT-*.parquet`.

Training (`read_mmeb`): the columns qry, qry_image_path, pos_text and pos_image_path. Copies that contain their images
have struct<bytes, path> columns instead of paths, which may be named qry_image and pos_image. Columns of published
negatives, which only some subsets have, are not read.

Evaluation (`read_mmeb_eval`): the columns qry_text and qry_img_path, and the lists tgt_text and tgt_img_path. The lists
are the closed candidates of the query. The first candidate is the positive.

The marker `<|image_1|>` for the position of an image is removed with the line break after it, even if there is no image
(in WebQA's queries). Instructions stay in the text.

Source: the dataset cards of TIGER-Lab/MMEB-train and TIGER-Lab/MMEB-eval on the Hugging Face hub.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from miner.importers.building.pair import Ignored, Pair, Row, readable
from unijudge.errors import DataError
from unijudge.foreign.cells import Rejected, Side, Unreadable, image_of, text_of
from unijudge.foreign.layouts import MMEB_TRAIN, without_marker
from unijudge.foreign.tables import parquet_rows, reading_rows
from unijudge.formats.tables import open_parquet
from unijudge.shown import listed, shown
from unijudge.storage.listing import foreign_files
from unijudge.storage.stores import is_folder

EVAL = [["qry_text"], ["qry_img_path", "qry_img"], ["tgt_text"], ["tgt_img_path", "tgt_img"]]


def read_mmeb(
    root: Path,
    *,
    split: str = "original",
    cap_per_subset: int | None = None,
    subsets: Collection[str] = (),
) -> Iterator[Row]:
    """Yields the training rows of all or the named subsets in file order, at most `cap_per_subset` of each subset.

    Raises:
        DataError: No subset has the split, a named subset is missing, or a file lacks a column.
    """
    for folder in _folders(root, split, subsets, "MMEB-train"):
        yield from _subset(folder, split, cap_per_subset, MMEB_TRAIN, _training_pair)


def read_mmeb_eval(
    root: Path,
    *,
    split: str = "test",
    cap_per_subset: int | None = None,
    subsets: Collection[str] = (),
) -> Iterator[Row]:
    """Yields the queries of an evaluation with their closed lists of candidates. See `read_mmeb`."""
    for folder in _folders(root, split, subsets, "MMEB-eval"):
        yield from _subset(folder, split, cap_per_subset, EVAL, _evaluation_pair)


def _folders(root: Path, split: str, subsets: Collection[str], name: str) -> Iterator[Path]:
    if not is_folder(root):
        raise DataError(
            f"{root}: no such folder. Give the root of {name}, which holds a folder for each subset"
        )
    folders = [
        folder
        for folder in foreign_files(root)
        if is_folder(folder) and foreign_files(folder, f"{split}-*.parquet")
    ]
    names = {folder.name for folder in folders}
    if missing := sorted(set(subsets) - names):
        raise DataError(
            f"{root}: no subset {shown(missing[0])} with {split}-*.parquet. Choose from {listed(names)}"
        )
    if not folders:
        raise DataError(
            f"{root}: no subfolder has {split}-*.parquet. Check that this is the root of {name}, and check the split"
        )
    for folder in folders:
        if not subsets or folder.name in subsets:
            yield folder


def _subset(
    folder: Path,
    split: str,
    cap: int | None,
    layout: Sequence[Sequence[str]],
    make: Callable[[Sequence[Any], str, str], Pair],
) -> Iterator[Row]:
    taken = 0
    files = foreign_files(folder, f"{split}-*.parquet")
    unread: set[str] = set()
    for path in files:
        with reading_rows(path):
            columns, others = _columns(path, layout)
            unread |= others
            for number, row in enumerate(parquet_rows(path, columns), start=1):
                if taken == cap:
                    return
                taken += 1
                cells = [row[column] for column in columns]
                yield readable(make, cells, f"{folder.name}/{path.stem}:{number}", folder.name)
    for name in sorted(unread):
        yield Ignored("columns", f"{name} of {folder.name}")
    for path in foreign_files(folder, "*.parquet"):
        if path not in files:
            yield Ignored("files of other splits", f"{folder.name}/{path.name}")


def _columns(path: Path, layout: Sequence[Sequence[str]]) -> tuple[list[str], set[str]]:
    """Returns the names of a layout's four columns in a file, and the names of all other columns."""
    with open_parquet(path) as file:
        names_in_file = set(file.schema_arrow.names)
    missing = sorted(names[0] for names in layout if not names_in_file.intersection(names))
    if missing:
        expected = [names[0] for names in layout]
        raise DataError(
            f"{path}: has no column {missing[0]!r}. Give files with the columns {expected} of MMEB's layout"
        )
    columns = [min(names_in_file.intersection(names), key=names.index) for names in layout]
    return columns, names_in_file.difference(columns)


def _training_pair(row: Sequence[Any], place: str, subset: str) -> Pair:
    query_text, query_image, positive_text, positive_image = row
    return Pair(place, subset, _side(query_text, query_image), _side(positive_text, positive_image))


def _evaluation_pair(row: Sequence[Any], place: str, subset: str) -> Pair:
    query_text, query_image, texts, images = row
    for cell in (texts, images):
        if isinstance(cell, Unreadable):
            raise Rejected(cell.reason)
        if cell is not None and not isinstance(cell, list):
            raise Rejected(f"{shown(cell)} is not a list of targets")
    if not texts or len(texts) != len(images or ()):
        raise Rejected(
            f"has {len(texts or ())} target texts and {len(images or ())} target images, but needs an image for each "
            "text"
        )
    targets = tuple(_side(text, image) for text, image in zip(texts, images, strict=True))
    return Pair(place, subset, _side(query_text, query_image), targets[0], candidates=targets)


def _side(text: Any, image: Any) -> Side:
    return Side(without_marker(text_of(text)), image_of(image))
