"""The most similar items of a pool for each query: exact (flat), or through FAISS' IVF and HNSW indexes.

Vectors are read block by block: a flat search of a million items needs room for one block, the queries and the best
found so far. IVF and HNSW hold all items in memory, and miss some: `recall` says how many.

Letters: N items · Q queries · D vector width · K found.
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
"""A search that is tried in a child process before the first real one."""
MOST_ON_A_GPU = 2048
"""Neighbours that FAISS finds there at most."""
QUERIES_AT_ONCE = 1024
"""Of a search in an index, between two looks whether to stop."""
NO_ITEM = -1
"""The row number where a pool has no more items."""


class Retriever(Protocol):
    """The seam: nearest items by inner product."""

    def search(self, queries_QD: Vectors, pool: Rows, k: int) -> tuple[Vectors, Rows]:
        """The k most similar items of a pool for each query, best first; ties by row number.

        Args:
            queries_QD: Unit vectors.
            pool: Item rows, ascending.
            k: How many.

        Returns:
            Similarities and item rows, both (Q, k); where the pool has no more: −inf and `NO_ITEM`.
        """
        ...


class ExactRetriever:
    """The specification: one matrix product over all vectors at once."""

    def __init__(self, vectors: VectorFolder):
        """Reads all items."""
        self._items_ND = vectors.whole("items")

    def search(self, queries_QD: Vectors, pool: Rows, k: int) -> tuple[Vectors, Rows]:
        """See `Retriever.search`."""
        best = Best(len(queries_QD), k)
        best.add(queries_QD @ self._items_ND[pool].T, np.broadcast_to(pool, (len(queries_QD), len(pool))))
        return best.similarities_QK, best.rows_QK


class FaissRetriever:
    """The same with FAISS' brute force, block by block; on a GPU where faiss-gpu finds one and k allows it."""

    def __init__(self, vectors: VectorFolder, stop: threading.Event | None = None):
        """Reads nothing yet."""
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
            values, places = self._knn(queries_QD, vectors_ND, min(k, len(rows)), metric=self._metric)
            best.add(values, rows[places])
        return best.similarities_QK, best.rows_QK


def check_installed(index: str) -> None:
    """Returns if FAISS is there for a kind of search that needs it: better now than after a plan is written.

    Raises:
        ModuleNotFoundError: It is not.
    """
    if index != "exact" and importlib.util.find_spec("faiss") is None:
        raise ModuleNotFoundError("No module named 'faiss'", name="faiss")


def gpu_works(faiss: Any) -> bool:
    """Whether faiss-gpu is installed and can search on a GPU here; says so where it is installed and cannot.

    A child process tries it: FAISS ends the whole process where a GPU's driver or its kernels do not fit.
    """
    if not hasattr(faiss, "StandardGpuResources"):
        return False
    if not faiss.get_num_gpus():
        logger.warning(
            "faiss-gpu: no GPU is visible, so candidates are searched on the CPU, slower. Check `nvidia-smi` and "
            "CUDA_VISIBLE_DEVICES"
        )
        return False
    command = [sys.executable, "-c", GPU_TRIAL]
    trial = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603  our own script
    if trial.returncode:
        last = (trial.stderr.strip().splitlines() or ["no message"])[-1]
        logger.warning(
            "faiss-gpu: a trial search on the GPU failed, so candidates are searched on the CPU, slower: %s. Check "
            "that the driver and this kind of GPU fit the installed faiss-gpu",
            last[:LONGEST_REASON],
        )
    return trial.returncode == 0


@dataclass(frozen=True)
class IndexShape:
    """What an approximate index is made of."""

    kind: Literal["ivf", "hnsw"]
    ivf_nlist: int = 0
    """IVF's cells; 0: four times the root of the number of items."""
    ivf_nprobe: int = 32
    """Cells that a search looks into."""
    hnsw_m: int = 32
    """HNSW's neighbours of an item."""
    hnsw_ef_search: int = 256
    """Items that an HNSW search keeps in sight; at least what is sought."""


class IndexRetriever:
    """FAISS' IVF or HNSW over all items; those outside of a pool are passed over while searching."""

    def __init__(self, vectors: VectorFolder, shape: IndexShape, stop: threading.Event | None = None):
        """Builds the index in memory, block by block: half of float32 where the vectors are stored as float16.

        Its cells are fitted to a random sample: an even one would meet one of the kinds that alternate in a corpus.
        """
        import faiss

        self._stop = stop
        self._faiss: Any = faiss
        self._shape = shape
        self._size, width = vectors.manifest.items, vectors.manifest.width
        codes = "SQfp16" if vectors.manifest.dtype == "float16" else "Flat"
        most = max(1, self._size // 39)  # FAISS wants 39 items a cell
        nlist = min(shape.ivf_nlist or int(4 * self._size**0.5), most)
        name = f"IVF{nlist},{codes}" if shape.kind == "ivf" else f"HNSW{shape.hnsw_m},{codes}"
        self._index: Any = faiss.index_factory(width, name, faiss.METRIC_INNER_PRODUCT)
        self._index.train(vectors.take("items", drawn(self._size, 64 * nlist)))
        for _, vectors_ND in vectors.blocks("items"):
            check(stop)
            self._index.add(vectors_ND)

    def search(self, queries_QD: Vectors, pool: Rows, k: int) -> tuple[Vectors, Rows]:
        """See `Retriever.search`; some of the nearest may be missing."""
        inside = np.zeros(self._size, bool)
        inside[pool] = True
        bits = np.packbits(inside, bitorder="little")
        selector = self._faiss.IDSelectorBitmap(self._size, self._faiss.swig_ptr(bits))
        if self._shape.kind == "ivf":
            parameters = self._faiss.SearchParametersIVF(sel=selector, nprobe=self._shape.ivf_nprobe)
        else:
            parameters = self._faiss.SearchParametersHNSW(sel=selector, efSearch=max(k, self._shape.hnsw_ef_search))
        found = []
        for start in range(0, len(queries_QD), QUERIES_AT_ONCE):
            check(self._stop)
            some_QD = np.ascontiguousarray(queries_QD[start : start + QUERIES_AT_ONCE])
            values, rows = self._index.search(some_QD, k, params=parameters)
            best = Best(len(some_QD), k)
            best.add(np.where(rows == NO_ITEM, -np.inf, values), rows)
            found.append((best.similarities_QK, best.rows_QK))
        return np.concatenate([values for values, _ in found]), np.concatenate([rows for _, rows in found])


def recall(approximate_QK: Rows, exact_QK: Rows) -> float:
    """The share of the truly nearest items that an index finds, in [0, 1].

    Example:
        >>> recall(np.array([[1, 2, 9]]), np.array([[1, 2, 3]])).__round__(3)
        0.667
    """
    real_QK = exact_QK != NO_ITEM
    hits = [
        np.isin(exact[real], near).sum() for near, exact, real in zip(approximate_QK, exact_QK, real_QK, strict=True)
    ]
    return float(sum(hits) / max(1, real_QK.sum()))


class Best:
    """The k best of everything that was added, for each query; ties by row number."""

    def __init__(self, queries: int, k: int):
        """Nothing yet."""
        self.similarities_QK = np.full((queries, k), -np.inf, np.float32)
        self.rows_QK = np.full((queries, k), NO_ITEM, np.int64)

    def add(self, similarities_QN: npt.NDArray[np.floating], rows_QN: Rows) -> None:
        """Takes similarities of items, and which items these are; rows of both may be in any order."""
        num, k = similarities_QN.shape[1], self.rows_QK.shape[1]
        cut_Q = self.similarities_QK[:, -1]  # what is below it is out of question: cut before the sort, ties kept
        if num > k:
            cut_Q = np.maximum(cut_Q, -np.partition(-similarities_QN, k, axis=1)[:, k])
        width = int((similarities_QN >= cut_Q[:, None]).sum(1).max(initial=0))
        if width < num:
            near = np.argpartition(-similarities_QN, width, axis=1)[:, :width]
            similarities_QN = np.take_along_axis(similarities_QN, near, axis=1)
            rows_QN = np.take_along_axis(rows_QN, near, axis=1)
        similarities = np.concatenate([self.similarities_QK, similarities_QN], axis=1)
        rows = np.concatenate([self.rows_QK, rows_QN], axis=1)
        order = np.lexsort((rows, -similarities), axis=1)[:, :k]
        self.similarities_QK = np.take_along_axis(similarities, order, axis=1)
        self.rows_QK = np.take_along_axis(rows, order, axis=1)


def pool_blocks(
    vectors: VectorFolder, pool: Rows, stop: threading.Event | None = None
) -> Iterator[tuple[Rows, Vectors]]:
    """The rows of a pool, block by block, with their vectors.

    Raises:
        Stopped: `stop` was set meanwhile.
    """
    if not len(pool):
        return
    for block, vectors_ND in vectors.blocks("items", range(int(pool[0]), int(pool[-1]) + 1)):
        check(stop)
        left, right = np.searchsorted(pool, [block.start, block.stop])
        rows = pool[left:right]
        if len(rows):
            yield rows, vectors_ND if len(rows) == len(block) else vectors_ND[rows - block.start]
