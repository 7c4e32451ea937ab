"""A folder of candidates: candidates.json first, then part-00000.parquet …, with the candidates of each query.

Retrieval writes the folder once for many scoring shards. Scoring and `mine estimate` read it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from unijudge.errors import DataError
from unijudge.formats.parts import (
    PartManifest,
    Parts,
    common,
    groups_holding,
    part_path,
    start_folder,
)
from unijudge.formats.tables import Table, reading
from unijudge.provenance import Provenance, differences
from unijudge.storage.files import read_json

QUERIES_IN_PART = 8_192


@dataclass(frozen=True)
class NearestItems:
    """The result of retrieval for a query."""

    items: list[int]
    """Rows of items.parquet, most similar first."""
    similarities: list[float]
    """The cosine similarity of each item and the query, −1 … 1."""
    positive_similarities: list[float | None]
    """The cosine similarity of each positive and the query, in order; None without a vector of query or positive."""


CANDIDATES = Table(
    "candidates",
    1,
    pa.schema(
        [
            ("items", pa.list_(pa.int32())),
            ("similarities", pa.list_(pa.float32())),
            ("positive_similarities", pa.list_(pa.float32())),
        ]
    ),
    ("positive_similarities",),
)


class CandidateManifest(PartManifest):
    """candidates.json: the settings of the search for candidates."""

    version: Literal[1] = 1
    corpus: str
    """The fingerprint of the corpus."""
    vectors: str
    """The sha256 of vectors.json."""
    queries: int
    k: int
    pool: Literal["global", "subset", "modality"]
    retrieval: dict[str, Any]
    """The settings of the retrieval."""
    made: Provenance | None = None

    @property
    def parts(self) -> Parts:
        """Returns the parts, by their queries."""
        return Parts(self.queries, QUERIES_IN_PART)


def start_candidates(folder: Path, manifest: CandidateManifest) -> CandidateManifest:
    """Publishes the manifest, or returns an existing manifest of the same search with at least as many candidates.

    Raises:
        DataError: The folder holds the candidates of another retrieval.
    """
    found = start_folder(folder / "candidates.json", manifest)
    fields = [name for name in differences(found, manifest) if name != "k" or found.k < manifest.k]
    if fields:
        raise DataError(
            f"{folder}: holds other candidates ({', '.join(fields)} differ). Give another folder"
        )
    return found


def write_candidates_part(
    folder: Path, manifest: CandidateManifest, part: int, rows: Iterator[NearestItems]
) -> None:
    """Publishes a complete part."""
    stream = (vars(row) for row in rows)
    CANDIDATES.write(part_path(folder, part), stream, rows_in_group=256, stamp=manifest.stamp(part))


class CandidateFolder:
    """A complete folder of candidates, opened for reading."""

    def __init__(self, folder: Path):
        """Reads the manifest.

        Raises:
            DataError: The manifest or a part is missing.
        """
        self.folder = folder
        self.manifest = read_json(folder / "candidates.json", CandidateManifest)
        if missing := self.manifest.parts.missing(folder):
            raise DataError(
                f"{folder}: {len(missing)} parts are missing. Run the same command again to finish it"
            )

    def of(self, queries: range) -> list[NearestItems]:
        """Returns the results of retrieval for some queries, in order."""
        found: list[NearestItems] = []
        for part in self.manifest.parts.holding(queries):
            found += self._part(part, queries)
        return found

    def counts(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Returns the number of candidates of each query."""
        lengths = [
            pc.list_value_length(self._items(part)).to_numpy()
            for part in range(len(self.manifest.parts))
        ]
        return np.concatenate(lengths).astype(np.int64)

    def _items(self, part: int) -> pa.ChunkedArray:
        return CANDIDATES.whole(part_path(self.folder, part), self.manifest.stamp(part), ["items"])[
            "items"
        ]

    def _part(self, part: int, queries: range) -> Iterator[NearestItems]:
        start = self.manifest.parts.rows_of(part).start
        path = part_path(self.folder, part)
        with CANDIDATES.open(path, self.manifest.stamp(part)) as file, reading(path):
            for group, rows in groups_holding(file, start, queries):
                wanted = common(rows, queries)
                for row in (
                    file.read_row_group(group)
                    .slice(wanted.start - rows.start, len(wanted))
                    .to_pylist()
                ):
                    yield NearestItems(**row)
