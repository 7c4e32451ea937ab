"""A corpus on disk: items.parquet (candidates), queries.parquet (training or evaluation rows), and corpus.json.

`mine import` writes a corpus, and all other commands read it. Images are not copied: they stay under a common root, and
the sha256 of their bytes is stored. An image that changed since the import is refused, never judged.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel

from unijudge.content import Content, content_key
from unijudge.errors import DataError
from unijudge.formats.image_roots import check_names, image_root, root_name
from unijudge.formats.lazy_table import LazyTable, RowIndex, Rows
from unijudge.formats.tables import Table
from unijudge.images.decoding import read_bounded
from unijudge.provenance import Provenance
from unijudge.storage.access_errors import unreadable
from unijudge.storage.files import file_sha256, publish_json, read_json
from unijudge.storage.stores import again, exists


@dataclass(frozen=True)
class Item:
    """A candidate: a distinct combination of text and image."""

    item_id: str
    pools: tuple[str, ...]
    text: str | None = None
    image: str | None = None
    """The path of the image under the corpus's image root."""
    image_sha256: str | None = None

    @property
    def key(self) -> bytes:
        """Returns the 16-byte hash of the item's content."""
        return content_key(self.text, self.image_sha256)


@dataclass(frozen=True)
class Query:
    """A training or evaluation row."""

    query_id: str
    subset: str
    positive_ids: tuple[str, ...]
    text: str | None = None
    image: str | None = None
    image_sha256: str | None = None
    candidates: tuple[int, ...] | None = None
    """The closed list of an evaluation, as row numbers of items.parquet."""

    @property
    def key(self) -> bytes:
        """Returns the 16-byte hash of the query's content."""
        return content_key(self.text, self.image_sha256)


_CONTENT = [("text", pa.string()), ("image", pa.string()), ("image_sha256", pa.string())]
ITEMS = Table(
    "items",
    1,
    pa.schema([("item_id", pa.string()), ("pools", pa.list_(pa.string())), *_CONTENT]),
    dict(_CONTENT),
)
QUERIES = Table(
    "queries",
    1,
    pa.schema(
        [
            ("query_id", pa.string()),
            ("subset", pa.string()),
            *_CONTENT,
            ("positive_ids", pa.list_(pa.string())),
            ("candidates", pa.list_(pa.int32())),
        ]
    ),
    {*dict(_CONTENT), "candidates"},
)


class CorpusManifest(BaseModel):
    """corpus.json, the content of the folder. It is written last, so a folder with this file is complete."""

    images: str
    """The root of the image paths, relative to the corpus folder."""
    items: int
    queries: int
    rejects: int
    items_sha256: str
    queries_sha256: str
    source: str
    """The command or the layout of the import."""
    made: Provenance | None = None

    @property
    def fingerprint(self) -> str:
        """Returns a hash of all items and queries."""
        return hashlib.sha256(f"{self.items_sha256}{self.queries_sha256}".encode()).hexdigest()


class Corpus:
    """An open corpus folder. Tables are in memory (some hundred megabytes for a million rows); images are not."""

    def __init__(self, folder: Path):
        """Opens and checks the folder.

        Raises:
            DataError: The folder is incomplete or damaged, an id is duplicate, a query has no positive or names a
                missing item, or a picture lies outside the image root.
        """
        self.folder = folder
        self.manifest = read_json(folder / "corpus.json", CorpusManifest)
        for name, expected in [
            ("items", self.manifest.items_sha256),
            ("queries", self.manifest.queries_sha256),
        ]:
            if file_sha256(folder / f"{name}.parquet") != expected:
                raise DataError(
                    f"{folder / name}.parquet: changed since it was written. Import again"
                )
        self.images = image_root(folder, self.manifest.images)
        self.items = LazyTable(ITEMS.whole(folder / "items.parquet"), _item)
        self.queries = LazyTable(QUERIES.whole(folder / "queries.parquet"), _query)
        pa.default_memory_pool().release_unused()
        check_names(folder, {"items": self.items.table, "queries": self.queries.table})
        self.item_ids: pa.ChunkedArray = self.items.table["item_id"]
        self.query_ids: pa.ChunkedArray = self.queries.table["query_id"]
        self.row_of = RowIndex(self.item_ids)
        """item_id → row number in `items`."""
        self.query_row_of = RowIndex(self.query_ids)
        """query_id → row number in `queries`."""
        for kind, index in [("item", self.row_of), ("query", self.query_row_of)]:
            if (twice := index.duplicate()) is not None:
                raise DataError(
                    f"{folder}: duplicate {kind} id {twice!r}. Ids must be unique. Import again"
                )
        self._positive_rows, self._starts = self._find_positives()
        self._check_closed_lists()
        pa.default_memory_pool().release_unused()  # reading and checking took half as much memory as the tables

    def positives(self, row: int) -> Rows:
        """Returns the item rows of a query's positives."""
        return self._positive_rows[self._starts[row] : self._starts[row + 1]]

    @property
    def labelled(self) -> tuple[Rows, Rows]:
        """Returns all labelled pairs: the query rows, and the item rows of their positives."""
        return np.repeat(np.arange(len(self.queries)), np.diff(self._starts)), self._positive_rows

    def _find_positives(self) -> tuple[Rows, Rows]:
        """Returns the item rows of all positives, query by query, and the first index of each query (queries + 1)."""
        lists = self.queries.table["positive_ids"].combine_chunks()
        ids = pc.list_flatten(lists)
        rows = self.row_of.rows(ids)
        starts = np.concatenate(
            [[0], np.cumsum(pc.fill_null(pc.list_value_length(lists), 0).to_numpy())]
        )
        if (alone := np.flatnonzero(np.diff(starts) == 0)).size:
            query = self.queries[int(alone[0])].query_id
            raise DataError(
                f"{self.folder}: query {query!r} has no positive. Import again, or leave that row out"
            )
        if (unknown := np.flatnonzero(rows < 0)).size:
            place = int(unknown[0])
            query = self.queries[int(np.searchsorted(starts, place, side="right")) - 1].query_id
            raise DataError(
                f"{self.folder}: query {query!r}: positive {ids[place].as_py()!r} is not among the items. Import again"
            )
        return rows, starts.astype(np.int64)

    def _check_closed_lists(self) -> None:
        """Refuses a closed list with an invalid row number. Without this check, −1 would select the last item."""
        lists = self.queries.table["candidates"].combine_chunks()
        rows = pc.list_flatten(lists)
        outside = pc.or_(pc.less(rows, 0), pc.greater_equal(rows, len(self.items)))
        place = int(pc.index(pc.fill_null(outside, True), True).as_py())
        if place >= 0:
            query = self.queries[pc.list_parent_indices(lists)[place].as_py()].query_id
            raise DataError(
                f"{self.folder}: query {query!r}: its closed list names item row {rows[place].as_py()}, but the corpus "
                f"has {len(self.items)} items. Import again"
            )

    @property
    def fingerprint(self) -> str:
        """Returns a hash of all items and queries."""
        return self.manifest.fingerprint

    def pool_rows(self, subset: str | None) -> Rows:
        """Returns the ascending rows of the items in a subset's pool, or of all items for None."""
        if subset is None:
            return np.arange(len(self.items))

        # An item has a list of pools. The lists are flattened: each entry has a pool and the row of its item.
        lists = self.items.table["pools"].combine_chunks()
        pools = pc.list_flatten(lists)
        rows = pc.list_parent_indices(lists).to_numpy()
        hits = pc.equal(pools, subset).to_numpy(zero_copy_only=False)
        return np.unique(rows[hits]).astype(np.int64)

    def content(self, entry: Item | Query) -> Content:
        """Returns the text and the image bytes of an item or a query.

        Raises:
            DataError: The image is missing, or changed since the import.
        """
        if entry.image is None:
            return Content(text=entry.text)
        path = self.images / entry.image
        try:
            data = again(path, lambda: read_bounded(path))
        except DataError:
            raise
        except FileNotFoundError as error:
            raise self._no_picture(path) from error
        except Exception as error:  # each store has its own family of errors
            raise unreadable(path, error) from error
        if hashlib.sha256(data).hexdigest() != entry.image_sha256:
            raise DataError(f"{path}: changed since it was imported. Restore it or import again")
        return Content(text=entry.text, image=data)

    def told(self, error: DataError) -> str:
        """Returns the message of an error of `content` for storage, without the folders of this machine."""
        return (
            str(error).replace(f"{self.images}/", "").replace(f"{self.images} ", "the image root ")
        )

    def _no_picture(self, path: Path) -> DataError:
        if exists(self.images):
            return DataError(f"{path}: cannot be read (no such file). Restore it or import again")
        return DataError(
            f"{path}: cannot be read, because {self.images} does not exist. A dataset may be published without images: "
            "put the images there, under the paths in the tables"
        )


def _item(**row: Any) -> Item:
    return Item(**row | {"pools": tuple(row["pools"])})


def _query(**row: Any) -> Query:
    candidates = row["candidates"]
    lists = {
        "positive_ids": tuple(row["positive_ids"]),
        "candidates": None if candidates is None else tuple(candidates),
    }
    return Query(**row | lists)


def write_corpus(
    folder: Path,
    items: Iterable[Item],
    queries: Iterable[Query],
    *,
    images: Path,
    rejects: int,
    source: str,
) -> CorpusManifest:
    """Writes the two tables, and then corpus.json."""
    num_items = ITEMS.write(folder / "items.parquet", (vars(item) for item in items))
    num_queries = QUERIES.write(folder / "queries.parquet", (vars(query) for query in queries))
    manifest = CorpusManifest(
        images=root_name(images, folder),
        items=num_items,
        queries=num_queries,
        rejects=rejects,
        items_sha256=file_sha256(folder / "items.parquet"),
        queries_sha256=file_sha256(folder / "queries.parquet"),
        source=source,
        made=Provenance.now(),
    )
    publish_json(folder / "corpus.json", manifest)
    return manifest
