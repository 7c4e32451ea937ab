"""FAISS against its specification, and the filter below the positive."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from miner import retrieve
from miner.retrieve import ExactRetriever, FaissRetriever, candidates_below


def unit(dice, rows, width=8):
    matrix = dice.normal(size=(rows, width)).astype(np.float32)
    return matrix / np.linalg.norm(matrix, axis=1, keepdims=True)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 80), st.integers(1, 60))
def test_both_retrievers_agree_with_the_definition(seed, num_items, k):
    dice = np.random.default_rng(seed)
    items, queries = unit(dice, num_items), unit(dice, 3)
    ceilings = dice.uniform(-1, 1, 3)
    excluded = [set(dice.integers(0, num_items, 2).tolist()) for _ in range(3)]
    similarities = (queries @ items.T).astype(float)
    definition = [
        sorted(
            [(r, s) for r, s in enumerate(row.tolist()) if s < ceiling and r not in barred],
            key=lambda pair: (-pair[1], pair[0]),
        )[:k]
        for row, ceiling, barred in zip(similarities, ceilings, excluded, strict=True)
    ]
    for retriever in (ExactRetriever(items), FaissRetriever(items)):
        found = candidates_below(retriever, queries, ceilings, excluded, k)
        assert [[row for row, _ in near] for near in found] == [[row for row, _ in near] for near in definition]
        for near, expected in zip(found, definition, strict=True):
            np.testing.assert_allclose([s for _, s in near], [s for _, s in expected], atol=1e-5)


def test_a_positive_that_ranks_low_still_gets_k_candidates():
    items = unit(np.random.default_rng(0), 500)
    query = items[:1]
    order = np.argsort(-(query @ items.T)[0])
    ceiling = float((query @ items.T)[0, order[400]])
    ((*found,),) = candidates_below(FaissRetriever(items), query, np.array([ceiling]), [{int(order[400])}], 50)
    assert [row for row, _ in found] == order[401:451].tolist()


def test_very_deep_and_in_blocks_it_is_the_same(monkeypatch):
    """Past DEEP the whole pool is fetched at once, a block of queries at a time."""
    items, queries = unit(np.random.default_rng(1), 3000), unit(np.random.default_rng(2), 9)
    ceilings = np.sort(queries @ items.T, axis=1)[:, 40]
    shallow = candidates_below(ExactRetriever(items), queries, ceilings, [set()] * 9, 20)
    monkeypatch.setattr(retrieve, "DEEP", 64)
    monkeypatch.setattr(retrieve, "BLOCK_ENTRIES", 5000)
    deep = candidates_below(ExactRetriever(items), queries, ceilings, [set()] * 9, 20)
    assert [[row for row, _ in near] for near in deep] == [[row for row, _ in near] for near in shallow]
    assert [len(near) for near in shallow] == [20] * 9


def test_no_more_than_the_pool_has():
    items = unit(np.random.default_rng(0), 5)
    ((*found,),) = candidates_below(FaissRetriever(items), items[:1], np.array([2.0]), [{0}], 50)
    assert {row for row, _ in found} == {1, 2, 3, 4}
