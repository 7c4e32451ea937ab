"""FAISS agrees with the exact search, and candidates are less similar than the positive."""

import threading

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from miner.retrieval import candidates, retrievers
from miner.retrieval.positive_aware import EQUAL, Window, candidates_below
from miner.retrieval.retrievers import (
    NO_ITEM,
    ExactRetriever,
    FaissRetriever,
    IndexRetriever,
    IndexShape,
    recall,
)
from miner.settings import RetrievalSettings
from miner.stopping import Stopped


def unit(dice, rows, width=8):
    matrix = dice.normal(size=(rows, width)).astype(np.float32)
    return matrix / np.linalg.norm(matrix, axis=1, keepdims=True)


class Blocks:
    """Vectors in memory that are read in blocks, like the vectors of a folder."""

    def __init__(self, items_ND, size=16, dtype="float32"):
        self.items_ND, self.size = items_ND, size
        self.manifest = type(
            "Manifest", (), {"items": len(items_ND), "width": items_ND.shape[1], "dtype": dtype}
        )
        self.read = []

    def blocks(self, kind, wanted=None):
        for start in range(0, len(self.items_ND), self.size):
            rows = range(start, min(start + self.size, len(self.items_ND)))
            if wanted is None or (rows.start < wanted.stop and wanted.start < rows.stop):
                self.read.append(rows)
                yield rows, self.items_ND[rows.start : rows.stop]

    def take(self, kind, rows):
        return self.items_ND[rows]

    def whole(self, kind):
        return self.items_ND


def ids(found):
    return [rows.tolist() for rows, _ in found]


def definition(similarities, ceiling, barred, pool, window):
    """The definition of candidates: sorted, limited to the window of ranks, then below the ceiling, then the first
    k.
    """
    order = sorted(
        (row for row in pool if row not in barred), key=lambda row: (-similarities[row], row)
    )
    ranked = order[window.range_min : window.range_max]
    return [row for row in ranked if similarities[row] < ceiling - EQUAL][: window.k]


def test_a_gpu_searches_if_it_supports_the_search(monkeypatch):
    """A fake faiss-gpu counts its calls and returns the same answers."""
    dice, asked = np.random.default_rng(0), []

    def knn_gpu(resources, queries_QD, items_ND, k, **options):
        asked.append(k)
        return faiss.knn(queries_QD, items_ND, k, **options)

    for name, stand_in in {
        "get_num_gpus": lambda: 1,
        "StandardGpuResources": object,
        "knn_gpu": knn_gpu,
    }.items():
        monkeypatch.setattr(faiss, name, stand_in, raising=False)
    monkeypatch.setattr(retrievers, "GPU_TRIAL", "pass")
    vectors = Blocks(unit(dice, 2100), size=2100)
    queries_QD, pool = unit(dice, 2), np.arange(2100)
    for k, calls in [(5, [5]), (2049, [5])]:
        found, exact = (
            kind(vectors).search(queries_QD, pool, k)[0]
            for kind in (FaissRetriever, ExactRetriever)
        )
        assert found == pytest.approx(exact, abs=1e-6)
        assert asked == calls


ABORT = """
import os
os.write(2, b"Faiss assertion 'err__ == cudaSuccess' failed in getCurrentDevice()")
os.abort()
"""


@pytest.mark.parametrize(
    ("gpus", "trial", "reason"),
    [
        (1, ABORT, "a trial search on the GPU failed: Faiss assertion"),
        (
            0,
            "pass",
            "no GPU is visible, so candidates are searched on the CPU, which is slower. Check `nvidia-smi`",
        ),
    ],
)
def test_an_unusable_gpu_is_named_and_not_used(monkeypatch, caplog, gpus, trial, reason):
    """FAISS aborts its process if CUDA does not work, so the check must run in another process."""
    for name, stand_in in {"get_num_gpus": lambda: gpus, "StandardGpuResources": object}.items():
        monkeypatch.setattr(faiss, name, stand_in, raising=False)
    monkeypatch.setattr(retrievers, "GPU_TRIAL", trial)
    dice = np.random.default_rng(0)
    found = FaissRetriever(Blocks(unit(dice, 50), size=50)).search(unit(dice, 2), np.arange(50), 3)
    assert found[1].shape == (2, 3)
    assert reason in caplog.text


@settings(deadline=None, max_examples=80)
@given(
    st.integers(0, 10_000), st.integers(1, 80), st.integers(1, 60), st.integers(0, 9),
    st.none() | st.integers(1, 90), st.booleans(),
)  # fmt: skip
def test_both_retrievers_agree_with_the_definition(seed, num_items, k, skip, depth, some_pool):
    dice = np.random.default_rng(seed)
    items, queries = unit(dice, num_items), unit(dice, 3)
    pool = np.flatnonzero(dice.uniform(size=num_items) < 0.6) if some_pool else np.arange(num_items)
    ceilings = dice.uniform(-1, 1, 3)
    excluded = [np.unique(dice.integers(0, num_items, 2)) for _ in range(3)]
    window = Window(k, skip, depth)
    expected = [
        definition(row.tolist(), ceiling, set(barred.tolist()), pool.tolist(), window)
        for row, ceiling, barred in zip(queries @ items.T, ceilings, excluded, strict=True)
    ]
    vectors = Blocks(items)
    for retriever in (ExactRetriever(vectors), FaissRetriever(vectors)):
        found = candidates_below(retriever, vectors, queries, pool, ceilings, excluded, window)
        assert ids(found) == expected
        for query, (rows, values) in zip(queries, found, strict=True):
            np.testing.assert_allclose(values, items[rows] @ query, atol=1e-5)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 10_000), st.integers(1, 80), st.integers(1, 30), st.integers(0, 9), st.none() | st.integers(1, 90),
    st.integers(1, 4),
)  # fmt: skip
def test_rows_with_the_same_question_are_searched_like_other_rows(
    seed, num_items, k, skip, depth, many
):
    """Each row has its own ceiling. Most items are excluded, so the nearest few items are not enough."""
    dice = np.random.default_rng(seed)
    items, questions = unit(dice, num_items), unit(dice, 3)
    barred = [np.flatnonzero(dice.uniform(size=num_items) < share) for share in (0.9, 0.3, 1)]
    asks = dice.integers(0, 3, 12)
    ceilings = np.where(dice.uniform(size=12) < 0.3, 2, dice.uniform(-1, 1, 12))
    pool, window = np.flatnonzero(dice.uniform(size=num_items) < 0.8), Window(k, skip, depth)
    expected = [
        definition(
            (questions[ask] @ items.T).tolist(),
            ceiling,
            set(barred[ask].tolist()),
            pool.tolist(),
            window,
        )
        for ask, ceiling in zip(asks, ceilings, strict=True)
    ]
    vectors = Blocks(items)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("miner.retrieval.positive_aware.MANY", many)
        patch.setattr("miner.retrieval.positive_aware.QUERIES_AT_ONCE", many)
        # Questions that are sorted together.
        patch.setattr("miner.retrieval.positive_aware.SIMILARITIES_AT_ONCE", many * 20)
        found = candidates_below(
            FaissRetriever(vectors),
            vectors,
            questions[asks],
            pool,
            ceilings,
            [barred[ask] for ask in asks],
            window,
        )
    assert ids(found) == expected
    for ask, (rows, values) in zip(asks, found, strict=True):
        np.testing.assert_allclose(values, items[rows] @ questions[ask], atol=1e-5)


def test_a_stopped_search_ends_within_a_part():
    vectors = Blocks(unit(np.random.default_rng(0), 500))
    stop = threading.Event()
    stop.set()
    search = (
        vectors,
        vectors.items_ND[:1],
        np.arange(500),
        np.array([-0.9]),
        [np.array([0])],
        Window(50),
        stop,
    )
    for retriever in (ExactRetriever(vectors), FaissRetriever(vectors, stop)):
        vectors.read.clear()
        with pytest.raises(Stopped):
            candidates_below(retriever, *search)
        assert len(vectors.read) <= 1


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 200), st.integers(1, 60))
def test_flat_search_is_exact(seed, num_items, k):
    dice = np.random.default_rng(seed)
    # There are many ties.
    items, queries = unit(dice, num_items, width=3).round(1), unit(dice, 5, width=3).round(1)
    vectors, pool = Blocks(items), np.flatnonzero(dice.uniform(size=num_items) < 0.8)
    (left, rows), (right, other) = (
        one.search(queries, pool, k) for one in (ExactRetriever(vectors), FaissRetriever(vectors))
    )
    np.testing.assert_allclose(left, right, atol=1e-6)
    for query, near, found, values in zip(queries, rows, other, right, strict=True):
        assert len(set(found[found != NO_ITEM])) == (found != NO_ITEM).sum() == min(k, len(pool))
        assert set(found[found != NO_ITEM]) <= set(pool)
        np.testing.assert_allclose(
            items[found[found != NO_ITEM]] @ query, values[found != NO_ITEM], atol=1e-6
        )
        assert (near == NO_ITEM).sum() == (found == NO_ITEM).sum()


def test_a_positive_that_ranks_low_still_gets_k_candidates():
    items = unit(np.random.default_rng(0), 500)
    query = items[:1]
    order = np.argsort(-(query @ items.T)[0])
    ceilings = (query @ items.T)[:, order[400]]
    vectors = Blocks(items)
    found = candidates_below(
        FaissRetriever(vectors),
        vectors,
        query,
        np.arange(500),
        ceilings,
        [order[[400]]],
        Window(50),
    )
    assert ids(found) == [order[401:451].tolist()]


def test_a_small_pool_gives_fewer_candidates():
    vectors = Blocks(unit(np.random.default_rng(0), 5))
    found = candidates_below(
        FaissRetriever(vectors), vectors, vectors.items_ND[:1], np.arange(5), np.array([2.0]), [np.array([0])],
        Window(50),
    )  # fmt: skip
    assert set(ids(found)[0]) == {1, 2, 3, 4}


def test_a_pool_reads_its_own_blocks_only():
    vectors = Blocks(unit(np.random.default_rng(0), 100))
    FaissRetriever(vectors).search(vectors.items_ND[:1], np.arange(40, 60), 5)
    assert vectors.read == [range(32, 48), range(48, 64)]


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_an_index_finds_most_items_of_a_pool(kind, dtype):
    dice = np.random.default_rng(0)
    items = unit(dice, 4000, width=16).astype(dtype).astype(np.float32)
    vectors, queries, pool = (
        Blocks(items, 512, dtype),
        unit(dice, 50, width=16),
        np.arange(0, 4000, 2),
    )
    _, exact = ExactRetriever(vectors).search(queries, pool, 10)
    values, near = IndexRetriever(vectors, IndexShape(kind)).search(queries, pool, 10)
    assert 0.8 < recall(near, exact) <= 1
    assert set(near.ravel()) <= set(pool)
    np.testing.assert_allclose(values, (queries[:, None] * items[near]).sum(-1), atol=1e-3)
    blind = IndexRetriever(
        vectors, IndexShape(kind, ivf_nlist=64, ivf_nprobe=1, hnsw_m=2, hnsw_ef_search=10)
    )
    assert recall(blind.search(queries, pool, 10)[1], exact) < 0.8


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_items_of_a_small_pool_that_an_index_misses_are_found_by_exact_search(kind):
    """The pool has every fortieth of 2,000 items. An index that ignores the pool finds few of the fifty items."""
    dice = np.random.default_rng(0)
    vectors, queries, pool = Blocks(unit(dice, 2000), 512), unit(dice, 20), np.arange(0, 2000, 40)
    index = IndexRetriever(
        vectors, IndexShape(kind, ivf_nlist=64, ivf_nprobe=1, hnsw_m=2, hnsw_ef_search=10)
    )
    assert (index.search(queries, pool, 50)[1] == NO_ITEM).any(1).all()
    nothing = [np.array([], np.int64)] * 20
    found = candidates_below(index, vectors, queries, pool, np.full(20, 2.0), nothing, Window(50))
    assert [set(rows) for rows in ids(found)] == [set(pool.tolist())] * 20


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_a_small_pool_is_searched_exactly(monkeypatch, kind):
    """The pool has `SMALL_POOL` items, or one item more."""
    monkeypatch.setattr(candidates, "SMALL_POOL", 200)
    dice = np.random.default_rng(0)
    vectors, queries = Blocks(unit(dice, 400), 512), unit(dice, 50)
    vectors.manifest.queries = 400
    pools = type(
        "Pools", (), {"name": lambda self, row: "", "of": lambda self, name: np.arange(400)}
    )()
    shape = {"index": kind, "ivf_nlist": 8, "ivf_nprobe": 1, "hnsw_m": 2, "hnsw_ef_search": 1}
    retriever = candidates.open_retriever(RetrievalSettings(corpus="c", **shape), vectors, pools)
    exact, shares = ExactRetriever(vectors), []
    for pool in (np.arange(200), np.arange(201)):
        near, right = (one.search(queries, pool, 10)[1] for one in (retriever, exact))
        shares.append(recall(near, right))
    assert shares[0] == 1
    assert shares[1] < 1


def test_recall_counts_real_items_only():
    exact = np.array([[4, 2, NO_ITEM], [1, NO_ITEM, NO_ITEM]])
    assert recall(exact, exact) == 1
    assert recall(np.array([[2, NO_ITEM, NO_ITEM], [3, NO_ITEM, NO_ITEM]]), exact) == pytest.approx(
        1 / 3
    )


def test_the_similarity_limit_follows_from_the_margins():
    def ceiling(**changes):
        return RetrievalSettings(corpus="c", **changes).ceiling(0.5)

    assert ceiling() == 0.5
    assert ceiling(margin=0.1) == pytest.approx(0.4)
    assert ceiling(margin=-0.1) == pytest.approx(0.6)
    assert ceiling(margin=-2) == 2.5
    assert ceiling(relative_margin=0.1) == pytest.approx(0.45)
    assert ceiling(margin=0.1, relative_margin=0.1) == pytest.approx(0.4)
    assert RetrievalSettings(corpus="c", relative_margin=0.1).ceiling(-0.5) == pytest.approx(-0.55)


def test_a_window_without_ranks_is_refused():
    with pytest.raises(ValidationError, match="range_min = 5 leaves no item below range_max = 5"):
        RetrievalSettings(corpus="c", range_min=5, range_max=5)
