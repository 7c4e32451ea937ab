"""A folder of embeddings: vectors.json, then items-00000.parquet …, queries-00000.parquet …, in corpus order.

`train embed` writes it; the miner and the evaluation read it. Every vector is of unit length, so a dot product is a
cosine similarity.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from unijudge.errors import DataError
from unijudge.files import publish_json, publishing, read_json

ROWS_IN_PART = 65_536
LENGTH_TOLERANCE = 0.01
"""float16 rounds a unit vector's length by less than this."""

Kind = Literal["items", "queries"]
_DIGEST = b"unijudge.vectors"


class VectorManifest(BaseModel):
    """vectors.json: which model embedded which corpus. Written first; the folder is whole when every part exists."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    version: Literal[1] = 1
    corpus: str
    """Fingerprint of the corpus."""
    model: str
    weights: str
    """The hub revision, or a digest of the folder."""
    adapter: str = "none"
    encoding: str
    """How contents become prompts."""
    min_pixels: int
    max_pixels: int
    model_dtype: str
    """Of the computation."""
    width: int
    dtype: Literal["float16", "float32"]
    """Of the stored vectors."""
    items: int
    queries: int

    @property
    def digest(self) -> str:
        """Stands in every part, so that a part of another embedding is not taken for one of this."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]

    def parts(self, kind: Kind) -> list[tuple[str, range]]:
        """The file name and the corpus rows of each part."""
        rows = getattr(self, kind)
        starts = range(0, rows, ROWS_IN_PART)
        return [
            (f"{kind}-{number:05d}.parquet", range(start, min(start + ROWS_IN_PART, rows)))
            for number, start in enumerate(starts)
        ]


def start_vectors(folder: Path, manifest: VectorManifest) -> None:
    """Publishes the manifest, or checks that the folder already has the same one.

    Raises:
        DataError: The folder holds the vectors of another model or corpus.
    """
    path = folder / "vectors.json"
    if not path.exists() and any(folder.glob("*.parquet")):
        raise DataError(f"{folder}: holds parts, but vectors.json is gone; delete the folder, or give another one")
    if path.exists() and (found := read_json(path, VectorManifest)) != manifest:
        fields = [name for name, value in found if value != getattr(manifest, name)]
        raise DataError(f"{folder}: holds other vectors ({', '.join(fields)} differ); give another output folder")
    publish_json(path, manifest)


def write_part(path: Path, manifest: VectorManifest, ids: list[str], vectors_ND: npt.NDArray[np.floating]) -> None:
    """Writes one part.

    Raises:
        DataError: A vector has a component that is not a number, or no length.
    """
    _check(path, vectors_ND)
    values = pa.array(vectors_ND.astype(manifest.dtype).ravel())
    table = pa.table({"id": ids, "vector": pa.FixedSizeListArray.from_arrays(values, vectors_ND.shape[1])})
    with publishing(path) as draft:
        pq.write_table(table.replace_schema_metadata({_DIGEST: manifest.digest}), draft)


def read_vectors(folder: Path, kind: Kind, ids: list[str], corpus: str) -> npt.NDArray[np.float32]:
    """All vectors of a kind, checked against the corpus.

    Args:
        folder: What `train embed` wrote.
        kind: `items` or `queries`.
        ids: The ids of the corpus, in order.
        corpus: The fingerprint of the corpus.

    Returns:
        (len(ids), width), float32, of unit length.

    Raises:
        DataError: Parts are missing or torn, belong to another corpus, or hold numbers that are not finite.
    """
    manifest = read_json(folder / "vectors.json", VectorManifest)
    if manifest.corpus != corpus:
        raise DataError(f"{folder}: embeds another corpus than the one given; run `unijudge train embed` on this one")
    vectors = np.empty((len(ids), manifest.width), np.float32)
    for name, rows in manifest.parts(kind):
        found, block = read_part(folder / name, manifest)
        if found != ids[rows.start : rows.stop]:
            raise DataError(f"{folder / name}: its ids are not those of the corpus; embed again")
        vectors[rows.start : rows.stop] = block
    return vectors


def missing_parts(folder: Path, manifest: VectorManifest, kind: Kind) -> Iterator[tuple[Path, range]]:
    """The parts that do not exist yet, with their corpus rows."""
    for name, rows in manifest.parts(kind):
        if not (folder / name).exists():
            yield folder / name, rows


def read_part(path: Path, manifest: VectorManifest) -> tuple[list[str], npt.NDArray[np.float32]]:
    """One part: its ids, and its vectors (rows, width), checked to be of unit length.

    Raises:
        DataError: It is missing, torn, foreign, or of another embedding.
    """
    width = manifest.width
    try:
        table = pq.read_table(path, memory_map=True)
        column = table.column("vector").combine_chunks()
        ids = table.column("id").to_pylist()
    except FileNotFoundError as error:
        raise DataError(f"{path}: missing; the embedding was not finished: run the same `train embed` again") from error
    except (pa.ArrowInvalid, KeyError, OSError) as error:
        raise DataError(f"{path}: torn or foreign ({error}); delete it and run `train embed` again") from error
    if (table.schema.metadata or {}).get(_DIGEST, b"").decode() != manifest.digest:
        raise DataError(
            f"{path}: belongs to another embedding than vectors.json; delete it and run `train embed` again"
        )
    if not pa.types.is_fixed_size_list(column.type) or column.type.list_size != width:
        raise DataError(f"{path}: vectors of {column.type}, but vectors.json says width {width}")
    block = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, width).astype(np.float32)
    _check(path, block)
    return ids, block


def _check(path: Path, vectors_ND: npt.NDArray[np.floating]) -> None:
    lengths = np.linalg.norm(vectors_ND.astype(np.float32), axis=1)
    bad = np.flatnonzero(~(np.abs(lengths - 1) < LENGTH_TOLERANCE))
    if len(bad):
        raise DataError(
            f"{path}: {len(bad)} vectors are not of unit length (row {bad[0]}: {lengths[bad[0]]:.4g}); the embedder is "
            "broken or did not normalise"
        )
