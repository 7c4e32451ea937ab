"""Finds the most similar items of a pool for each query: exactly (flat), or through FAISS' IVF and HNSW indexes.

A flat search reads vectors block by block. Its memory holds one block, the queries and the best items so far, also for
a million items. IVF and HNSW hold all items in memory and miss some of the nearest items. `recall` measures how many
items an index finds.

Letters: N items · Q queries · D vector width · K nearest items.
"""

import importlib.util
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from miner.stopping import check
from miner.strata import drawn
from unijudge.formats.lazy_table import Rows
from unijudge.formats.vectors import VectorFolder, Vectors
from unijudge.storage.access_errors import LONGEST_REASON

logger = logging.getLogger(__name__)

GPU_TRIAL = """
import faiss, numpy
ones = numpy.ones((9, 8), "float32")
faiss.knn_gpu(faiss.StandardGpuResources(), ones, ones, 3)
"""
"""A trial search, run in a child process before the first real search on a GPU."""
MOST_ON_A_GPU = 2048
"""Largest number of neighbours that FAISS finds on a GPU."""
QUERIES_AT_ONCE = 1024
"""Queries that are searched in an index between two checks for a stop."""
NO_ITEM = -1
"""The row number that stands for "no item" when a pool has fewer items than the search should find."""


class Retriever(Protocol):
    """The interface of a search for nearest items by inner product."""

    def search(self, queries_QD: Vectors, pool: Rows, k: int) -> tuple[Vectors, Rows]:
        """Finds the k most similar items of a pool for each query, best first. Ties are sorted by row number.

        Args:
            queries_QD: Unit vectors.
            pool: Item rows, ascending.
            k: Number of items to find.

        Returns:
            Similarities and item rows, both (Q, k). If the pool has fewer items, the rest is −inf and `NO_ITEM`.
        """
        ...


class ExactRetriever:
    """The reference retriever: one matrix product over all vectors. Other retrievers must agree with its results."""

    def __init__(self, vectors: VectorFolder):
        """Reads the vectors of all items."""
        self._items_ND = vectors.whole("items")

    def search(self, queries_QD: Vectors, pool: Rows, k: int) -> tuple[Vectors, Rows]:
        """See `Retriever.search`."""
        similarities_QN = queries_QD @ self._items_ND[pool].T
        best = Best(len(queries_QD), k)
        best.add(similarities_QN, np.broadcast_to(pool, similarities_QN.shape))
        return best.similarities_QK, best.rows_QK


class FaissRetriever:
    """An exact search with FAISS, block by block. It runs on a GPU if faiss-gpu finds one and k is small enough."""

    def __init__(self, vectors: VectorFolder, stop: threading.Event | None = None):
        """Chooses between CPU and GPU. Vectors are read when a search starts."""
        import faiss

        self._vectors = vectors
        self._stop = stop
        self._metric = faiss.METRIC_INNER_PRODUCT
        self._knn: Any = faiss.knn
        if gpu_works(faiss):
            resources = faiss.StandardGpuResources()

            def knn(queries: Vectors, items: Vectors, k: int, **options: Any) -> Any:
                if k > MOST_ON_A_GPU:
                    return faiss.knn(queries, items, k, **options)
                return faiss.knn_gpu(resources, queries, items, k, **options)

            self._knn = knn

    def search(self, queries_QD: Vectors, pool: Rows, k: int) -> tuple[Vectors, Rows]:
        """See `Retriever.search`."""
        best = Best(len(queries_QD), k)
        for rows, vectors_ND in pool_blocks(self._vectors, pool, self._stop):
            similarities_QK, places_QK = self._knn(
                queries_QD, vectors_ND, min(k, len(rows)), metric=self._metric
            )
            best.add(similarities_QK, rows[places_QK])
        return best.similarities_QK, best.rows_QK


def check_installed(index: str) -> None:
    """Checks that FAISS is installed if the kind of search needs FAISS. Call it before a plan is written.

    Raises:
        ModuleNotFoundError: FAISS is needed and not installed.
    """
    if index != "exact" and importlib.util.find_spec("faiss") is None:
        raise ModuleNotFoundError("No module named 'faiss'", name="faiss")


def gpu_works(faiss: Any) -> bool:
    """Returns whether faiss-gpu is installed and can search on a GPU here. Warns if it is installed but cannot.

    A child process runs a trial search, because FAISS aborts the whole process if the driver of a GPU or FAISS' kernels
    do not fit.
    """
    if not hasattr(faiss, "StandardGpuResources"):
        return False
    if not faiss.get_num_gpus():
        logger.warning(
            "faiss-gpu: no GPU is visible, so candidates are searched on the CPU, which is slower. Check `nvidia-smi` "
            "and CUDA_VISIBLE_DEVICES"
        )
        return False

    command = [sys.executable, "-c", GPU_TRIAL]
    trial = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603  our own script
    if trial.returncode:
        printed = trial.stderr.strip().splitlines() or ["no message"]
        reason = printed[-1]
        logger.warning(
            "faiss-gpu: a trial search on the GPU failed: %s. Candidates are searched on the CPU, which is slower. "
            "Check that the driver and this kind of GPU fit the installed faiss-gpu",
            reason[:LONGEST_REASON],
        )
    return trial.returncode == 0


@dataclass(frozen=True)
class IndexShape:
    """The kind and the parameters of an approximate index."""

    kind: Literal["ivf", "hnsw"]
    ivf_nlist: int = 0
    """Number of cells of an IVF index. 0 means four times the square root of the number of items."""
    ivf_nprobe: int = 32
    """Number of cells that a search in an IVF index visits."""
    hnsw_m: int = 32
    """Number of neighbours of each item in an HNSW index."""
    hnsw_ef_search: int = 256
    """Number of items that a search in an HNSW index keeps in its queue; at least the number of items to find."""


class IndexRetriever:
    """A search in FAISS' IVF or HNSW index over all items. It skips the items outside the pool."""

    def __init__(
        self, vectors: VectorFolder, shape: IndexShape, stop: threading.Event | None = None
    ):
        """Builds the index in memory, block by block. Vectors stored as float16 take half the memory of float32.

        The cells are fitted to a random sample: an evenly spaced sample could contain only one of the kinds of items
        that alternate in a corpus.
        """
        import faiss

        self._stop = stop
        self._faiss: Any = faiss
        self._shape = shape
        self._size, width = vectors.manifest.items, vectors.manifest.width

        # FAISS wants at least 39 items for each cell.
        max_cells = max(1, self._size // 39)
        cells = min(shape.ivf_nlist or int(4 * self._size**0.5), max_cells)
        codes = "SQfp16" if vectors.manifest.dtype == "float16" else "Flat"
        name = f"IVF{cells},{codes}" if shape.kind == "ivf" else f"HNSW{shape.hnsw_m},{codes}"

        self._index: Any = faiss.index_factory(width, name, faiss.METRIC_INNER_PRODUCT)
        self._index.train(vectors.take("items", drawn(self._size, 64 * cells)))
        for _, vectors_ND in vectors.blocks("items"):
            check(stop)
            self._index.add(vectors_ND)

    def search(self, queries_QD: Vectors, pool: Rows, k: int) -> tuple[Vectors, Rows]:
        """See `Retriever.search`. Some of the nearest items may be missing."""
        # A bitmap of the pool lets FAISS skip the items outside. `bits` must live as long as the selector.
        inside = np.zeros(self._size, bool)
        inside[pool] = True
        bits = np.packbits(inside, bitorder="little")
        selector = self._faiss.IDSelectorBitmap(self._size, self._faiss.swig_ptr(bits))
        if self._shape.kind == "ivf":
            parameters = self._faiss.SearchParametersIVF(
                sel=selector, nprobe=self._shape.ivf_nprobe
            )
        else:
            queue = max(k, self._shape.hnsw_ef_search)
            parameters = self._faiss.SearchParametersHNSW(sel=selector, efSearch=queue)

        # FAISS does not sort ties by row number. `Best` does.
        similarities, rows = [], []
        for start in range(0, len(queries_QD), QUERIES_AT_ONCE):
            check(self._stop)
            batch_QD = np.ascontiguousarray(queries_QD[start : start + QUERIES_AT_ONCE])
            similarities_QK, rows_QK = self._index.search(batch_QD, k, params=parameters)
            best = Best(len(batch_QD), k)
            best.add(np.where(rows_QK == NO_ITEM, -np.inf, similarities_QK), rows_QK)
            similarities.append(best.similarities_QK)
            rows.append(best.rows_QK)
        return np.concatenate(similarities), np.concatenate(rows)


def recall(approximate_QK: Rows, exact_QK: Rows) -> float:
    """Returns the share of the truly nearest items that an index finds, in [0, 1].

    Example:
        >>> recall(np.array([[1, 2, 9]]), np.array([[1, 2, 3]])).__round__(3)
        0.667
    """
    is_item_QK = exact_QK != NO_ITEM
    hits = 0
    for approximate, exact, is_item in zip(approximate_QK, exact_QK, is_item_QK, strict=True):
        hits += np.isin(exact[is_item], approximate).sum()
    return float(hits / max(1, is_item_QK.sum()))


class Best:
    """The k most similar of all items that were added, for each query. Ties are sorted by row number."""

    def __init__(self, queries: int, k: int):
        """Starts without items."""
        self.similarities_QK = np.full((queries, k), -np.inf, np.float32)
        self.rows_QK = np.full((queries, k), NO_ITEM, np.int64)

    def add(self, similarities_QN: npt.NDArray[np.floating], rows_QN: Rows) -> None:
        """Adds items by their similarities and row numbers. Items may be in any order."""
        num = similarities_QN.shape[1]
        k = self.rows_QK.shape[1]

        # Items below the cut cannot be among the k best. They are removed before the sort. Ties with the cut are kept.
        cut_Q = self.similarities_QK[:, -1]
        if num > k:
            descending_QN = np.partition(-similarities_QN, k, axis=1)
            cut_Q = np.maximum(cut_Q, -descending_QN[:, k])
        kept_Q = (similarities_QN >= cut_Q[:, None]).sum(1)
        width = int(kept_Q.max(initial=0))
        if width < num:
            nearest = np.argpartition(-similarities_QN, width, axis=1)[:, :width]
            similarities_QN = np.take_along_axis(similarities_QN, nearest, axis=1)
            rows_QN = np.take_along_axis(rows_QN, nearest, axis=1)

        # The k best so far and the new items are sorted together.
        similarities = np.concatenate([self.similarities_QK, similarities_QN], axis=1)
        rows = np.concatenate([self.rows_QK, rows_QN], axis=1)
        order = np.lexsort((rows, -similarities), axis=1)[:, :k]
        self.similarities_QK = np.take_along_axis(similarities, order, axis=1)
        self.rows_QK = np.take_along_axis(rows, order, axis=1)


def pool_blocks(
    vectors: VectorFolder, pool: Rows, stop: threading.Event | None = None
) -> Iterator[tuple[Rows, Vectors]]:
    """Yields the rows of a pool and their vectors, block by block.

    Raises:
        Stopped: `stop` was set during the search.
    """
    if not len(pool):
        return
    for block, vectors_ND in vectors.blocks("items", range(int(pool[0]), int(pool[-1]) + 1)):
        check(stop)
        left, right = np.searchsorted(pool, [block.start, block.stop])
        rows = pool[left:right]
        if len(rows) == len(block):
            yield rows, vectors_ND
        elif len(rows):
            yield rows, vectors_ND[rows - block.start]
