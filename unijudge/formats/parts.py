"""A folder of parts: a manifest, and numbered Parquet files with consecutive rows.

A manifest that is written first is a plan that never changes. It tells which parts make the folder complete, and its
stamp marks each part.
"""

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from unijudge.provenance import MADE
from unijudge.storage.files import names_in, publish_json, read_json
from unijudge.storage.outputs import check_folder

M = TypeVar("M", bound=BaseModel)

PART = re.compile(r"part-\d{5,}\.parquet")
"""The pattern of the names that `part_path` gives."""


def part_path(folder: Path, part: int, prefix: str = "part") -> Path:
    """Returns the path of a part. Parts are numbered from 0."""
    return folder / f"{prefix}-{part:05d}.parquet"


@dataclass(frozen=True)
class Parts:
    """The division of rows into parts.

    Example:
        >>> parts = Parts(rows=10, rows_in_part=4)
        >>> len(parts), parts.rows_of(2), parts.holding(range(3, 5))
        (3, range(8, 10), [0, 1])
    """

    rows: int
    rows_in_part: int
    prefix: str = "part"

    def __len__(self) -> int:
        """Returns the number of parts of a complete folder."""
        return len(range(0, self.rows, self.rows_in_part))

    def rows_of(self, part: int) -> range:
        """Returns the rows of a part."""
        start = part * self.rows_in_part
        return range(start, min(start + self.rows_in_part, self.rows))

    def holding(self, wanted: range | None) -> list[int]:
        """Returns the parts with any of these rows, or all parts for None."""
        return [
            part
            for part in range(len(self))
            if wanted is None or common(self.rows_of(part), wanted)
        ]

    def paths(self, folder: Path) -> list[Path]:
        """Returns the paths of the parts, in order."""
        return [part_path(folder, part, self.prefix) for part in range(len(self))]

    def missing(self, folder: Path) -> list[int]:
        """Returns the parts that do not exist yet, by one listing."""
        there = names_in(folder)
        return [part for part, path in enumerate(self.paths(folder)) if path.name not in there]


class PartManifest(BaseModel, ABC):
    """The manifest of a folder of parts, which is written first and never changed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @property
    @abstractmethod
    def parts(self) -> Parts:
        """Returns the parts of the complete folder."""

    @property
    def fingerprint(self) -> str:
        """Returns the sha256 of the plan, which does not change when the folder is published."""
        return hashlib.sha256(self.model_dump_json(exclude=MADE).encode()).hexdigest()

    def stamp(self, part: int) -> str:
        """Returns the text that a part stores to show that it belongs to this plan."""
        return f"{self.fingerprint[:16]}/{part}"


def start_folder(path: Path, manifest: M, own: Collection[str] | None = None) -> M:
    """Publishes the manifest of a folder if the folder has no manifest, and returns the manifest in the folder.

    Args:
        path: The path of the manifest.
        manifest: The manifest to publish.
        own: Names that a folder without a manifest may hold; None for any.

    Raises:
        DataError: The existing manifest is of another kind, or a folder without a manifest holds other files.
    """
    if path.name in names_in(path.parent):
        return read_json(path, type(manifest))
    if own is not None:
        check_folder(path.parent, {path.name, *own})
    publish_json(path, manifest)
    return manifest


def common(one: range, other: range) -> range:
    """Returns the rows that both ranges contain, which may be empty."""
    return range(max(one.start, other.start), min(one.stop, other.stop))


def groups_holding(
    file: pq.ParquetFile, start: int, wanted: range | None
) -> Iterator[tuple[int, range]]:
    """Yields the row groups with any wanted row (None: all), and their rows, of a part that begins at row `start`."""
    for group in range(file.num_row_groups):
        rows = range(start, start + file.metadata.row_group(group).num_rows)
        start = rows.stop
        if wanted is None or common(rows, wanted):
            yield group, rows
