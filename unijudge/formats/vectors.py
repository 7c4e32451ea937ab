"""A folder of embeddings: vectors.json, then items-00000.parquet …, queries-00000.parquet …, in corpus order.

`train embed` writes the folder, and the miner and the evaluation read it. Every vector has unit length, so a dot
product is a cosine similarity.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field

from unijudge.errors import DataError
from unijudge.formats.corpus import Corpus
from unijudge.formats.lazy_table import Rows
from unijudge.formats.parts import Parts, groups_holding, part_path, start_folder
from unijudge.formats.tables import checked, open_parquet, reading
from unijudge.provenance import MADE, Provenance, differences
from unijudge.shown import shown
from unijudge.storage.files import names_in, publish_json, publishing, read_json
from unijudge.storage.outputs import check_folder

ROWS_IN_PART = 65_536
ROWS_IN_BLOCK = 8_192
"""The number of rows in one read: 50 MB at a width of 1,536."""
LENGTH_TOLERANCE = 0.01
"""The largest error of a unit vector's length; the rounding to float16 is smaller."""

Vectors = npt.NDArray[np.float32]
EntryKind = Literal["items", "queries"]
ENTRY_KINDS: tuple[EntryKind, ...] = ("items", "queries")
_DIGEST = b"unijudge.vectors"
_SKIPPED = b"unijudge.skipped"
LONG = {"on_long", "max_tokens"}
"""The fields of the manifest about long inputs."""


class VectorManifest(BaseModel):
    """vectors.json: the model and the corpus. It is written first; the folder is complete when every part exists."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    version: Literal[2] = 2
    corpus: str
    """The fingerprint of the corpus."""
    model: str
    weights: str
    """The hub revision, or a digest of the folder."""
    adapter: str = "none"
    encoding: str
    """The name of the format by which contents become prompts."""
    min_pixels: int
    max_pixels: int
    resize: str = Field("keep", exclude_if=lambda resize: resize == "keep")
    """The scaling of pictures. `keep` is not written, as in older folders, which could not be `square`."""
    model_dtype: str
    """The dtype of the computation."""
    inputs_version: str = "unknown"
    """The versions of the libraries that make tokens and pixels."""
    width: int
    dtype: Literal["float16", "float32"]
    """The dtype of the stored vectors."""
    items: int
    queries: int
    on_long: Literal["error", "truncate", "skip"] = Field(
        "error", exclude_if=lambda on_long: on_long == "error"
    )
    """The treatment of inputs with more than `max_tokens`."""
    max_tokens: int | None = Field(None, exclude_if=lambda tokens: tokens is None)
    """The most tokens of an input. If `on_long` is `error`, no vector depends on this limit."""
    made: Provenance | None = None

    @property
    def digest(self) -> str:
        """Returns the mark of this embedding, which every part contains, so that parts cannot be mixed up.

        Long inputs do not change the digest: a part that was made with `error` has no long inputs, so it is also valid
        for a job that truncates or skips them.
        """
        return hashlib.sha256(self.model_dump_json(exclude=MADE | LONG).encode()).hexdigest()[:16]

    def parts(self, kind: EntryKind) -> Parts:
        """Returns the parts, by their corpus rows."""
        return Parts(getattr(self, kind), ROWS_IN_PART, kind)


def check_vector_output(folder: Path) -> None:
    """Refuses an output folder that holds something else. A job calls this before it opens its model.

    Raises:
        DataError: The folder holds other files than vectors.
    """
    if "vectors.json" not in names_in(folder):
        check_folder(folder)


def start_vectors(folder: Path, manifest: VectorManifest) -> None:
    """Publishes the manifest, or checks that the folder already has the same manifest.

    A folder that was started with `on_long` = `error` may continue with `truncate` or `skip`.

    Raises:
        DataError: The folder holds the vectors of another model or corpus, or something else.
    """
    path = folder / "vectors.json"
    found = start_folder(path, manifest, own=())
    fields = differences(found, manifest)
    if fields and found.on_long == "error" and set(fields) <= LONG:
        publish_json(path, manifest)
    elif fields:
        changes = "; ".join(
            f"{shown(getattr(found, name))} became {shown(getattr(manifest, name))}"
            for name in fields
        )
        why = ""
        if set(fields) <= LONG:
            why = "A folder has one treatment of long inputs. "
        elif "corpus" in fields:
            why = "The corpus was imported again, so it needs new vectors. "
        raise DataError(
            f"{folder}: holds other vectors ({', '.join(fields)} differ: {changes}). {why}Give another output folder"
        )


def write_vectors_part(
    path: Path,
    manifest: VectorManifest,
    ids: list[str],
    vectors_ND: npt.NDArray[np.floating],
    skipped_N: npt.NDArray[np.bool_] | None = None,
) -> None:
    """Writes a part. A skipped input has a row without a vector.

    Raises:
        DataError: A vector is not finite, or not of unit length.
    """
    skipped_N = np.zeros(len(ids), bool) if skipped_N is None else skipped_N
    _check(path, vectors_ND[~skipped_N] if skipped_N.any() else vectors_ND)
    width = vectors_ND.shape[1]
    vector = pa.list_(pa.from_numpy_dtype(np.dtype(manifest.dtype)), width)
    marks = {_DIGEST: manifest.digest.encode()}
    if skipped_N.any():
        marks[_SKIPPED] = ",".join(map(str, np.flatnonzero(skipped_N))).encode()
    schema = pa.schema([("id", pa.string()), ("vector", vector)], marks)
    with (
        publishing(path) as draft,
        pq.ParquetWriter(draft.absolute(), schema, write_page_checksum=True) as writer,
    ):
        for start in range(0, len(ids), ROWS_IN_BLOCK):
            block = slice(start, start + ROWS_IN_BLOCK)
            stored = vectors_ND[block].astype(manifest.dtype)
            values = pa.array(stored.ravel())
            nulls = pa.array(skipped_N[block])
            lists = pa.FixedSizeListArray.from_arrays(values, width, mask=nulls)
            names = pa.array(ids[block], pa.string())
            writer.write_table(pa.Table.from_arrays([names, lists], schema=schema))


def missing_vector_parts(
    folder: Path, manifest: VectorManifest, kind: EntryKind
) -> Iterator[tuple[Path, range]]:
    """Yields the parts that do not exist yet, with their corpus rows."""
    parts = manifest.parts(kind)
    for part in parts.missing(folder):
        yield part_path(folder, part, kind), parts.rows_of(part)


class VectorFolder:
    """The embeddings of a corpus, read in blocks, so that memory does not grow with the number of vectors."""

    def __init__(self, folder: Path, corpus: Corpus):
        """Reads only the manifest.

        Raises:
            DataError: The manifest is missing, or the vectors embed another corpus.
        """
        self.folder = folder
        self.manifest = read_json(folder / "vectors.json", VectorManifest)
        if self.manifest.corpus != corpus.fingerprint:
            raise DataError(
                f"{folder}: embeds another corpus than the given corpus. Run `unijudge train embed` on the given corpus"
            )
        self._ids = {"items": corpus.item_ids, "queries": corpus.query_ids}

    def blocks(
        self, kind: EntryKind, wanted: range | None = None
    ) -> Iterator[tuple[range, Vectors]]:
        """Yields the rows of each block, in order, and their vectors: (rows, width), float32, of unit length.

        The vector of a skipped input is all zeros.

        Args:
            kind: `items` or `queries`.
            wanted: The wanted rows. Blocks without any of these rows are left out.

        Raises:
            DataError: A part is missing, damaged or foreign, or holds numbers that are not finite.
        """
        parts = self.manifest.parts(kind)
        for part in parts.holding(wanted):
            path = part_path(self.folder, part, kind)
            yield from self._part(kind, path, parts.rows_of(part), wanted)

    def skipped(self, kind: EntryKind) -> Rows:
        """Returns the ascending rows whose inputs were too long and have no vector.

        Raises:
            DataError: A part is missing, damaged or foreign.
        """
        found = [np.empty(0, np.int64)]
        if self.manifest.on_long == "skip":
            parts = self.manifest.parts(kind)
            for part, path in enumerate(parts.paths(self.folder)):
                with _opened(path, self.manifest) as file:
                    found.append(parts.rows_of(part).start + _skipped(file))
        return np.concatenate(found)

    def whole(self, kind: EntryKind) -> Vectors:
        """Returns all vectors of a kind, (N, width)."""
        return self.take(kind, np.arange(getattr(self.manifest, kind)))

    def take(self, kind: EntryKind, rows: Rows) -> Vectors:
        """Returns the vectors of some rows, in the order of `rows`: (len(rows), width)."""
        found = np.empty((len(rows), self.manifest.width), np.float32)
        if not len(rows):
            return found
        wanted = range(int(rows.min()), int(rows.max()) + 1)
        for block, vectors in self.blocks(kind, wanted):
            here = (rows >= block.start) & (rows < block.stop)
            found[here] = vectors[rows[here] - block.start]
        return found

    def _part(
        self, kind: EntryKind, path: Path, rows: range, wanted: range | None
    ) -> Iterator[tuple[range, Vectors]]:
        with _opened(path, self.manifest) as file:
            for group, block in groups_holding(file, rows.start, wanted):
                ids, vectors = _block(path, file, group, self.manifest.width)
                of_corpus = self._ids[kind].slice(block.start, len(block))
                if not ids.equals(of_corpus.combine_chunks()):
                    raise DataError(f"{path}: its ids are not those of the corpus. Embed again")
                yield block, vectors
            found = file.metadata.num_rows
        if found != len(rows):
            raise DataError(
                f"{path}: {found} vectors, but the part has {len(rows)} rows. Embed again"
            )


def check_part(path: Path, manifest: VectorManifest) -> int:
    """Reads a part, and returns its number of vectors.

    Raises:
        DataError: The part is missing, damaged, foreign or of another embedding, or a vector is not of unit length.
    """
    with _opened(path, manifest) as file:
        return sum(
            len(_block(path, file, group, manifest.width)[0])
            for group in range(file.num_row_groups)
        )


def _skipped(file: pq.ParquetFile) -> Rows:
    """Returns the row numbers in a part without a vector."""
    written = (file.schema_arrow.metadata or {}).get(_SKIPPED, b"").decode()
    return np.array([int(number) for number in written.split(",") if number], np.int64)


def _opened(path: Path, manifest: VectorManifest) -> pq.ParquetFile:
    with reading(path):
        file = open_parquet(path)
    schema = file.schema_arrow
    if (schema.metadata or {}).get(_DIGEST, b"") != manifest.digest.encode():
        raise DataError(
            f"{path}: belongs to another embedding than vectors.json. Delete it and run `train embed` again"
        )
    if schema.names != ["id", "vector"]:
        raise DataError(
            f"{path}: its columns are not those of vectors. Delete it and run `train embed` again"
        )
    kind = schema.field("vector").type
    if not pa.types.is_fixed_size_list(kind) or kind.list_size != manifest.width:
        raise DataError(
            f"{path}: vectors of {kind}, but vectors.json says width {manifest.width}. Delete it and run `train embed` "
            "again"
        )
    return file


def _block(path: Path, file: pq.ParquetFile, group: int, width: int) -> tuple[pa.Array, Vectors]:
    with reading(path):
        start = sum(file.metadata.row_group(earlier).num_rows for earlier in range(group))
        table = checked(path, file.read_row_group(group), start, ("vector",))
    column = table.column("vector").combine_chunks()
    there = column.is_valid().to_numpy(zero_copy_only=False)

    # Only the rows that the file lists as skipped may be null.
    skipped = _skipped(file) - start
    is_here = (skipped >= 0) & (skipped < len(there))
    if not np.array_equal(np.flatnonzero(~there), skipped[is_here]):
        raise DataError(
            f"{path}: {column.null_count} vectors are null. Delete it and run `train embed` again"
        )
    # `flatten` below leaves out nulls, so they stay 0.
    vectors = np.zeros((len(there), width), np.float32)
    vectors[there] = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
    _check(path, vectors[there])
    return table.column("id").combine_chunks(), vectors


def _check(path: Path, vectors_ND: npt.NDArray[np.floating]) -> None:
    # Block by block, because a float32 copy of all vectors would be large.
    lengths_of_blocks = [np.empty(0, np.float32)]
    for start in range(0, len(vectors_ND), ROWS_IN_BLOCK):
        block = vectors_ND[start : start + ROWS_IN_BLOCK].astype(np.float32)
        lengths_of_blocks.append(np.linalg.norm(block, axis=1))
    lengths = np.concatenate(lengths_of_blocks)
    bad = np.flatnonzero(~(np.abs(lengths - 1) < LENGTH_TOLERANCE))
    if len(bad):
        raise DataError(
            f"{path}: {len(bad)} vectors are not of unit length (row {bad[0]}: {lengths[bad[0]]:.4g}). Check that the "
            "embedder works and normalises its vectors"
        )
