"""MMEB-train in its published layout: a folder for each subset with `SPLIT-*.parquet` files in it.

Columns: qry, qry_image_path, pos_text, pos_image_path. The marker `<|image_1|>` says where a picture stands; it is
stripped, with the line break after it, also where no image follows (WebQA's queries). Instructions stay in the text.

Source: the dataset card of TIGER-Lab/MMEB-train on the Hugging Face hub.
"""

from collections.abc import Collection, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from miner.importers.build import Pair, Side
from unijudge.errors import DataError

COLUMNS = ["qry", "qry_image_path", "pos_text", "pos_image_path"]
MARKER = "<|image_1|>"


def read_mmeb(
    root: Path, *, split: str = "original", cap_per_subset: int | None = None, subsets: Collection[str] = ()
) -> Iterator[Pair]:
    """Yields the rows of every subset, or of the named ones, each up to its cap, in file order.

    Raises:
        DataError: No subset has that split, a named subset is missing, or a file has other columns.
    """
    folders = (
        sorted(folder for folder in root.iterdir() if any(folder.glob(f"{split}-*.parquet"))) if root.is_dir() else []
    )
    found = {folder.name for folder in folders}
    if missing := sorted(set(subsets) - found):
        raise DataError(f"{root}: no subset {missing[0]!r} with {split}-*.parquet; there are {sorted(found)}")
    if not folders:
        raise DataError(
            f"{root}: no subfolder has {split}-*.parquet; is this the root of MMEB-train, and the split right?"
        )
    for folder in folders:
        if not subsets or folder.name in subsets:
            yield from _subset(folder, split, cap_per_subset)


def _subset(folder: Path, split: str, cap: int | None) -> Iterator[Pair]:
    taken = 0
    for path in sorted(folder.glob(f"{split}-*.parquet")):
        try:
            file = pq.ParquetFile(path)
            if lacking := sorted(set(COLUMNS) - set(file.schema_arrow.names)):
                raise DataError(f"{path}: no column {lacking[0]!r}; expected the MMEB-train layout {COLUMNS}")
            number = 0
            for batch in file.iter_batches(columns=COLUMNS):
                for row in batch.to_pylist():
                    if taken == cap:
                        return
                    taken += 1
                    number += 1
                    yield Pair(
                        place=f"{folder.name}/{path.stem}:{number}",
                        subset=folder.name,
                        query=Side(without_marker(row["qry"]), row["qry_image_path"]),
                        positive=Side(without_marker(row["pos_text"]), row["pos_image_path"]),
                    )
        except (pa.ArrowInvalid, OSError) as error:
            raise DataError(f"{path}: not a whole Parquet file ({error})") from error


def without_marker(text: str | None) -> str:
    r"""A text without image markers.

    Example:
        >>> without_marker("<|image_1|>\nRepresent the given image.\n")
        'Represent the given image.\n'
    """
    return (text or "").replace(MARKER + "\n", "").replace(MARKER, "")
