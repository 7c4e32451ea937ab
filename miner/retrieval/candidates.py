"""The first stage of a scoring job: which items each query's judge will see. Whole parts; a rerun goes on."""

import logging
import math
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from miner.retrieval.pools import Pools
from miner.retrieval.positive_aware import Window, candidates_below
from miner.retrieval.retrievers import ExactRetriever, FaissRetriever, IndexRetriever, IndexShape, Retriever, recall
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
from unijudge.formats.vectors import ENTRY_KINDS, VectorFolder, Vectors

logger = logging.getLogger(__name__)

RECALL_QUERIES = 256
RECALL_K = 50
SMALL_POOL = 8192
"""Items of a pool that is searched exactly, whatever the index: an index over all items passes over those outside of a
pool, and finds few or none where the pool is a small part of them."""
NOTHING_FOUND = np.empty(0, np.int64), np.empty(0, np.float32)


def find_candidates(
    folder: Path,
    manifest: CandidateManifest,
    corpus: Corpus,
    vectors: VectorFolder,
    settings: RetrievalSettings,
    stop: threading.Event | None = None,
) -> CandidateFolder:
    """Fills a folder of candidates, or what is missing of it, and says how many queries have fewer than k.

    A folder that holds more candidates of the same search serves as well: the first k are its own.

    Raises:
        DataError: The folder holds those of another retrieval, or vectors are missing or torn.
        Stopped: `stop` was set; parts that are written stay.
    """
    manifest = start_candidates(folder, manifest)
    if missing := manifest.parts.missing(folder):
        unseen = vectors.skipped("items")
        same = {"fold_case": settings.fold_case, "allow_query_image": settings.allow_query_image}
        pools = Pools(corpus, settings.pool, **same, unseen=unseen)
        retriever = open_retriever(settings, vectors, pools, stop)
        wider = settings.model_copy(update={"k": manifest.k})
        for part in missing:
            rows = manifest.parts.rows_of(part)
            write_candidates_part(folder, manifest, part, _found(rows, corpus, vectors, pools, retriever, wider, stop))
            logger.info("candidates of %d queries of %d", rows.stop, manifest.queries)
    found = CandidateFolder(folder)
    _tell_skipped(vectors)
    counts = found.counts()
    if few := int((counts < settings.k).sum()):
        logger.info(
            "%d of %d queries have fewer than k = %d candidates (the fewest: %d): their pool or window has no more",
            few, len(counts), settings.k, counts.min(),
        )  # fmt: skip
    return found


def _tell_skipped(vectors: VectorFolder) -> None:
    items, queries = (len(vectors.skipped(kind)) for kind in ENTRY_KINDS)
    if items or queries:
        logger.warning(
            "%s: %d items and %d queries were too long for the embedder and have no vector, so these items are no "
            "candidates, and queries without a vector, or of which no positive has one, get none; embed with a larger "
            "model.max_tokens, or with model.on_long = 'truncate', to have them",
            vectors.folder, items, queries,
        )  # fmt: skip


def open_retriever(
    settings: RetrievalSettings, vectors: VectorFolder, pools: Pools, stop: threading.Event | None = None
) -> Retriever:
    """The retriever that the settings ask for; an approximate one says what it misses.

    Raises:
        Stopped: `stop` was set meanwhile.
    """
    flat = FaissRetriever(vectors, stop)
    if settings.index == "flat":
        return flat
    if settings.index == "exact":
        return ExactRetriever(vectors)
    shape = IndexShape(
        settings.index, settings.ivf_nlist, settings.ivf_nprobe, settings.hnsw_m, settings.hnsw_ef_search
    )
    index = _Indexed(IndexRetriever(vectors, shape, stop), flat)
    sample = drawn(vectors.manifest.queries, RECALL_QUERIES)
    queries_QD = vectors.take("queries", sample)
    names = np.array([pools.name(int(row)) for row in sample])

    def found(one: Retriever) -> Rows:
        rows = [one.search(queries_QD[names == name], pools.of(str(name)), RECALL_K)[1] for name in np.unique(names)]
        return np.concatenate(rows)

    near, exact = found(index), found(flat)
    logger.info("%s: recall@%d %.4f on %d queries", settings.index, RECALL_K, recall(near, exact), len(sample))
    return index


class _Indexed:
    """An index for large pools, and the exact search for small ones."""

    def __init__(self, index: Retriever, flat: Retriever):
        self._index, self._flat = index, flat

    def search(self, queries_QD: Vectors, pool: Rows, k: int) -> tuple[Vectors, Rows]:
        """See `Retriever.search`."""
        retriever = self._flat if len(pool) <= SMALL_POOL else self._index
        return retriever.search(queries_QD, pool, k)


def _found(
    rows: range,
    corpus: Corpus,
    vectors: VectorFolder,
    pools: Pools,
    retriever: Retriever,
    settings: RetrievalSettings,
    stop: threading.Event | None,
) -> Iterator[NearestItems]:
    queries_QD = vectors.take("queries", np.arange(rows.start, rows.stop))
    positives = _positive_similarities(rows, corpus, vectors, queries_QD)
    ceilings = np.array([settings.ceiling(_highest(values)) for values in positives])
    members_of: dict[str, list[int]] = {}
    blind = ~queries_QD.any(1) | np.isnan(ceilings)  # without a vector, or with nothing to lie below of
    for place, row in enumerate(rows):
        if not blind[place]:
            members_of.setdefault(pools.name(row), []).append(place)
    window = Window(settings.k, settings.range_min, settings.range_max)
    found: dict[int, tuple[Rows, Vectors]] = {}
    for name, members in members_of.items():
        excluded = [pools.excluded(rows[place]) for place in members]
        near = candidates_below(
            retriever, vectors, queries_QD[members], pools.of(name), ceilings[members], excluded, window, stop
        )
        found |= dict(zip(members, near, strict=True))
    for place, values in enumerate(positives):
        items, similarities = found.get(place, NOTHING_FOUND)
        own = [None if np.isnan(value) else float(value) for value in values]
        yield NearestItems(items.tolist(), similarities.tolist(), own)


def _positive_similarities(rows: range, corpus: Corpus, vectors: VectorFolder, queries_QD: Vectors) -> list[Vectors]:
    """Cosine of each query with its own positives, in their order; NaN where either has no vector."""
    positives = [corpus.positives(row) for row in rows]
    wanted, places = np.unique(np.concatenate(positives), return_inverse=True)
    ends = np.cumsum([len(one) for one in positives])
    items_ND = vectors.take("items", wanted)
    items_ND[~items_ND.any(1)] = np.nan
    queries_QD = np.where(queries_QD.any(1, keepdims=True), queries_QD, np.nan)
    return [items_ND[some] @ query for some, query in zip(np.split(places, ends[:-1]), queries_QD, strict=True)]


def _highest(similarities: Vectors) -> float:
    """NaN where all are."""
    there = similarities[~np.isnan(similarities)]
    return float(there.max()) if len(there) else math.nan
