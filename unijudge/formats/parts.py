"""A folder of parts: a manifest, and numbered Parquet files of which each holds the next rows.

Where the manifest is written first, it is a plan that never changes; it says which parts make the folder whole, and
marks each of them as its own.
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
"""What `part_path` calls a part."""


def part_path(folder: Path, part: int, prefix: str = "part") -> Path:
    """Where a part lies; parts are counted from 0."""
    return folder / f"{prefix}-{part:05d}.parquet"


@dataclass(frozen=True)
class Parts:
    """How rows are shared out among parts.

    Example:
        >>> parts = Parts(rows=10, rows_in_part=4)
        >>> len(parts), parts.rows_of(2), parts.holding(range(3, 5))
        (3, range(8, 10), [0, 1])
    """

    rows: int
    rows_in_part: int
    prefix: str = "part"

    def __len__(self) -> int:
        """How many parts make the folder whole."""
        return len(range(0, self.rows, self.rows_in_part))

    def rows_of(self, part: int) -> range:
        """The rows of a part."""
        start = part * self.rows_in_part
        return range(start, min(start + self.rows_in_part, self.rows))

    def holding(self, wanted: range | None) -> list[int]:
        """The parts with any of these rows; None: all."""
        return [part for part in range(len(self)) if wanted is None or common(self.rows_of(part), wanted)]

    def paths(self, folder: Path) -> list[Path]:
        """Where the parts lie, in order."""
        return [part_path(folder, part, self.prefix) for part in range(len(self))]

    def missing(self, folder: Path) -> list[int]:
        """The parts that do not exist yet, by one listing."""
        there = names_in(folder)
        return [part for part, path in enumerate(self.paths(folder)) if path.name not in there]


class PartManifest(BaseModel, ABC):
    """The manifest of a folder of parts. Written first and never changed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @property
    @abstractmethod
    def parts(self) -> Parts:
        """The parts that make the folder whole."""

    @property
    def fingerprint(self) -> str:
        """The sha256 of the plan; the same where somebody published the folder."""
        return hashlib.sha256(self.model_dump_json(exclude=MADE).encode()).hexdigest()

    def stamp(self, part: int) -> str:
        """What marks a file as this part of this plan."""
        return f"{self.fingerprint[:16]}/{part}"


def start_folder(path: Path, manifest: M, own: Collection[str] | None = None) -> M:
    """Publishes the manifest of a folder unless there is one, and returns the manifest that is there.

    Raises:
        DataError: The manifest is of another kind; or there is none, and `own` is given and does not name all that is.
    """
    if path.name in names_in(path.parent):
        return read_json(path, type(manifest))
    if own is not None:
        check_folder(path.parent, {path.name, *own})
    publish_json(path, manifest)
    return manifest


def common(one: range, other: range) -> range:
    """The rows that are in both; empty where there are none."""
    return range(max(one.start, other.start), min(one.stop, other.stop))


def groups_holding(file: pq.ParquetFile, start: int, wanted: range | None) -> Iterator[tuple[int, range]]:
    """The row groups of a part, which begins at row `start`, with any of these rows (None: all); and their rows."""
    for group in range(file.num_row_groups):
        rows = range(start, start + file.metadata.row_group(group).num_rows)
        start = rows.stop
        if wanted is None or common(rows, wanted):
            yield group, rows
