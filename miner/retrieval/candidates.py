"""The first stage of a scoring job: writes a folder of candidates, part by part. A rerun resumes at the first gap."""

import logging
import math
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from miner.retrieval.pools import Pools
from miner.retrieval.positive_aware import Window, candidates_below
from miner.retrieval.retrievers import (
    ExactRetriever,
    FaissRetriever,
    IndexRetriever,
    IndexShape,
    Retriever,
    recall,
)
from miner.settings import RetrievalSettings
from miner.strata import drawn
from unijudge.formats.candidates import (
    CandidateFolder,
    CandidateManifest,
    NearestItems,
    start_candidates,
    write_candidates_part,
)
from unijudge.formats.corpus import Corpus
from unijudge.formats.lazy_table import Rows
from unijudge.formats.vectors import VectorFolder, Vectors

logger = logging.getLogger(__name__)

RECALL_QUERIES = 256
RECALL_K = 50
SMALL_POOL = 8192
"""Largest number of items in a pool that is searched exactly, whatever the index. An index covers all items and skips
the items outside the pool, so a search in a small pool would find few items or no item."""
NOTHING_FOUND = np.empty(0, np.int64), np.empty(0, np.float32)


def find_candidates(
    folder: Path,
    manifest: CandidateManifest,
    corpus: Corpus,
    vectors: VectorFolder,
    settings: RetrievalSettings,
    stop: threading.Event | None = None,
) -> CandidateFolder:
    """Writes the missing parts of a folder of candidates, and logs how many queries have fewer than k candidates.

    A folder of the same search with a larger k is accepted too: its first k candidates are the same.

    Raises:
        DataError: The folder holds the candidates of a different retrieval, or vectors are missing or truncated.
        Stopped: `stop` was set. Parts that are already written are kept.
    """
    manifest = start_candidates(folder, manifest)
    if missing := manifest.parts.missing(folder):
        pools = Pools(
            corpus,
            settings.pool,
            fold_case=settings.fold_case,
            allow_query_image=settings.allow_query_image,
            unseen=vectors.skipped("items"),
        )
        retriever = open_retriever(settings, vectors, pools, stop)
        folder_settings = settings.model_copy(update={"k": manifest.k})
        for part in missing:
            rows = manifest.parts.rows_of(part)
            nearest = _nearest_items(rows, corpus, vectors, pools, retriever, folder_settings, stop)
            write_candidates_part(folder, manifest, part, nearest)
            logger.info("candidates found for %d of %d queries", rows.stop, manifest.queries)

    candidates = CandidateFolder(folder)
    _warn_of_skipped(vectors)
    counts = candidates.counts()
    if few := int((counts < settings.k).sum()):
        logger.info(
            "%d of %d queries have fewer than k = %d candidates (the fewest: %d): the pool or the window has no "
            "more items that are less similar to the query than its positive minus margin = %g. A smaller margin, "
            "down to -2, admits more",
            few, len(counts), settings.k, counts.min(), settings.margin,
        )  # fmt: skip
    return candidates


def _warn_of_skipped(vectors: VectorFolder) -> None:
    items, queries = len(vectors.skipped("items")), len(vectors.skipped("queries"))
    if items or queries:
        logger.warning(
            "%s: %d items and %d queries have no vector: they were too long for the embedder. These items are not "
            "candidates. A query gets no candidates if the query, or all of its positives, have no vector. To include "
            "them, embed with a larger model.max_tokens or with model.on_long = 'truncate'",
            vectors.folder, items, queries,
        )  # fmt: skip


def open_retriever(
    settings: RetrievalSettings,
    vectors: VectorFolder,
    pools: Pools,
    stop: threading.Event | None = None,
) -> Retriever:
    """Opens the retriever that the settings name. Logs the recall of an approximate retriever.

    Raises:
        Stopped: `stop` was set during the search.
    """
    flat = FaissRetriever(vectors, stop)
    if settings.index == "flat":
        return flat
    if settings.index == "exact":
        return ExactRetriever(vectors)
    shape = IndexShape(
        settings.index,
        settings.ivf_nlist,
        settings.ivf_nprobe,
        settings.hnsw_m,
        settings.hnsw_ef_search,
    )
    index = _Indexed(IndexRetriever(vectors, shape, stop), flat)

    # The recall is measured on a sample of queries, each searched in its own pool.
    sample = drawn(vectors.manifest.queries, RECALL_QUERIES)
    queries_QD = vectors.take("queries", sample)
    names = np.array([pools.name(int(row)) for row in sample])

    def nearest(retriever: Retriever) -> Rows:
        rows = []
        for name in np.unique(names):
            _, pool_rows_QK = retriever.search(
                queries_QD[names == name], pools.of(str(name)), RECALL_K
            )
            rows.append(pool_rows_QK)
        return np.concatenate(rows)

    share = recall(nearest(index), nearest(flat))
    logger.info("%s: recall@%d %.4f on %d queries", settings.index, RECALL_K, share, len(sample))
    return index


class _Indexed:
    """Searches large pools in an index, and small pools exactly."""

    def __init__(self, index: Retriever, flat: Retriever):
        self._index, self._flat = index, flat

    def search(self, queries_QD: Vectors, pool: Rows, k: int) -> tuple[Vectors, Rows]:
        """See `Retriever.search`."""
        retriever = self._flat if len(pool) <= SMALL_POOL else self._index
        return retriever.search(queries_QD, pool, k)


def _nearest_items(
    rows: range,
    corpus: Corpus,
    vectors: VectorFolder,
    pools: Pools,
    retriever: Retriever,
    settings: RetrievalSettings,
    stop: threading.Event | None,
) -> Iterator[NearestItems]:
    """Yields the candidates of each query of `rows`, and the similarities of its positives."""
    queries_QD = vectors.take("queries", np.arange(rows.start, rows.stop))
    positives = _positive_similarities(rows, corpus, vectors, queries_QD)
    ceilings = np.array([settings.ceiling(_highest(values)) for values in positives])

    # Queries are grouped by pool. Without a vector or a ceiling, a query is not searched.
    skipped = ~queries_QD.any(1) | np.isnan(ceilings)
    members_of: dict[str, list[int]] = {}
    for query, row in enumerate(rows):
        if not skipped[query]:
            members_of.setdefault(pools.name(row), []).append(query)

    # The queries of one pool are searched together.
    window = Window(settings.k, settings.range_min, settings.range_max)
    nearest: dict[int, tuple[Rows, Vectors]] = {}
    for name, members in members_of.items():
        excluded = [pools.excluded(rows[query]) for query in members]
        pool_nearest = candidates_below(
            retriever,
            vectors,
            queries_QD[members],
            pools.of(name),
            ceilings[members],
            excluded,
            window,
            stop,
        )
        nearest |= dict(zip(members, pool_nearest, strict=True))

    for query, values in enumerate(positives):
        items, similarities = nearest.get(query, NOTHING_FOUND)
        positive_similarities = [None if np.isnan(value) else float(value) for value in values]
        yield NearestItems(items.tolist(), similarities.tolist(), positive_similarities)


def _positive_similarities(
    rows: range, corpus: Corpus, vectors: VectorFolder, queries_QD: Vectors
) -> list[Vectors]:
    """Returns the cosines of each query with its positives, in their order. NaN if either has no vector."""
    positives = [corpus.positives(row) for row in rows]
    wanted, places = np.unique(np.concatenate(positives), return_inverse=True)
    ends = np.cumsum([len(items) for items in positives])

    # Each distinct positive is read once. A zero vector stands for a missing vector.
    items_ND = vectors.take("items", wanted)
    items_ND[~items_ND.any(1)] = np.nan
    queries_QD = np.where(queries_QD.any(1, keepdims=True), queries_QD, np.nan)
    places_of = np.split(places, ends[:-1])
    return [
        items_ND[own_places] @ query_D
        for own_places, query_D in zip(places_of, queries_QD, strict=True)
    ]


def _highest(similarities: Vectors) -> float:
    """Returns the largest number, or NaN if all are NaN."""
    numbers = similarities[~np.isnan(similarities)]
    return float(numbers.max()) if len(numbers) else math.nan
