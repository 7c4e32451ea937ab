"""A folder of candidates: candidates.json first, then part-00000.parquet …, with the candidates of each query.

Retrieval writes the folder once for many scoring shards. Scoring and `mine estimate` read it.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from unijudge.errors import DataError
from unijudge.formats.tables import Table, reading
from unijudge.provenance import MADE, Provenance, differences
from unijudge.storage.files import names_in, publish_json, read_json

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


class CandidateManifest(BaseModel):
    """candidates.json: how candidates were sought. Written first and never changed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

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

    def parts(self) -> list[range]:
        """The queries of each part."""
        starts = range(0, self.queries, QUERIES_IN_PART)
        return [range(start, min(start + QUERIES_IN_PART, self.queries)) for start in starts]

    def stamp(self, part: int) -> str:
        """What marks a file as this part of this retrieval."""
        return f"{hashlib.sha256(self.model_dump_json(exclude=MADE).encode()).hexdigest()[:16]}/{part}"


def part_path(folder: Path, part: int) -> Path:
    """Where a part lies."""
    return folder / f"part-{part:05d}.parquet"


def start_candidates(folder: Path, manifest: CandidateManifest) -> CandidateManifest:
    """Publishes the manifest, or returns an existing manifest of the same search with at least as many candidates.

    Raises:
        DataError: The folder holds the candidates of another retrieval.
    """
    path = folder / "candidates.json"
    if path.name not in names_in(folder):
        publish_json(path, manifest)
        return manifest
    found = read_json(path, CandidateManifest)
    fields = [name for name in differences(found, manifest) if name != "k" or found.k < manifest.k]
    if fields:
        raise DataError(f"{folder}: holds other candidates ({', '.join(fields)} differ); give another folder")
    return found


def missing_candidate_parts(folder: Path, manifest: CandidateManifest) -> list[int]:
    """The parts that do not exist yet."""
    there = names_in(folder)
    return [part for part in range(len(manifest.parts())) if part_path(folder, part).name not in there]


def write_candidates_part(folder: Path, manifest: CandidateManifest, part: int, rows: Iterator[NearestItems]) -> None:
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
        if missing := missing_candidate_parts(folder, self.manifest):
            raise DataError(f"{folder}: {len(missing)} parts are missing; run the same command again to finish it")

    def of(self, queries: range) -> list[NearestItems]:
        """Returns the results of retrieval for some queries, in order."""
        found: list[NearestItems] = []
        for part, rows in enumerate(self.manifest.parts()):
            if rows.start < queries.stop and queries.start < rows.stop:
                found += self._part(part, rows, queries)
        return found

    def counts(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Returns the number of candidates of each query."""
        lengths = [
            pc.list_value_length(self._whole(part)["items"]).to_numpy() for part in range(len(self.manifest.parts()))
        ]
        return np.concatenate(lengths).astype(np.int64)

    def _whole(self, part: int) -> pa.Table:
        return CANDIDATES.whole(part_path(self.folder, part), self.manifest.stamp(part), ["items"])

    def _part(self, part: int, rows: range, queries: range) -> Iterator[NearestItems]:
        start = rows.start
        path = part_path(self.folder, part)
        with CANDIDATES.open(path, self.manifest.stamp(part)) as file, reading(path):
            for group in range(file.num_row_groups):
                here = range(start, start + file.metadata.row_group(group).num_rows)
                start = here.stop
                if here.start < queries.stop and queries.start < here.stop:
                    first, last = max(0, queries.start - here.start), min(len(here), queries.stop - here.start)
                    for row in file.read_row_group(group).slice(first, last - first).to_pylist():
                        yield NearestItems(**row)
