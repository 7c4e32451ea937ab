"""The order of queries: neighbours share items, every query comes once, and shards keep the order of the corpus."""

import itertools

import numpy as np
import pytest

from bench.order import hit_rate
from miner.scoring.job import score
from miner.scoring.query_order import shared_order
from tests.miner.conftest import quiet, serving
from tests.miner.counting import Counting
from unijudge.formats.scores import read_scores


def clustered(queries, clusters, seed=0):
    """Queries in random order. Each query asks about 10 of the 20 items of its cluster."""
    dice = np.random.default_rng(seed)
    return [
        np.sort(20 * dice.integers(clusters) + dice.choice(20, 10, replace=False))
        for _ in range(queries)
    ]


def test_neighbours_share_items():
    items = clustered(300, 30)
    order = shared_order(items)
    assert sorted(order) == list(range(300))
    assert shared_order(items) == order, "the same on every run"
    clusters = [int(items[query][0]) // 20 for query in order]
    changes = sum(a != b for a, b in itertools.pairwise(clusters))
    assert changes == 29, "each cluster is one block"
    assert hit_rate(order, items, 20) > 0.75
    assert hit_rate(range(300), items, 20) < 0.1


@pytest.mark.parametrize(
    "items", [[], [[]], [[], [], []], [[5], [], [5, 5]], [[2**62], [-1], [2**62]]]
)
def test_queries_without_items_or_with_strange_items_come_once(items):
    order = shared_order([np.array(row, np.int64) for row in items])
    assert sorted(order) == list(range(len(items)))


@pytest.mark.parametrize("together", [1, 3, 100])
def test_shards_are_the_same_however_many_are_sent_together(job, tmp_path, together):
    with serving(Counting()) as url:
        score(job(url, out=tmp_path / "one"), quiet)
        settings = job(url, out=tmp_path / "many", shards_together=together)
        score(settings, quiet)
        (settings.out / "part-00002.parquet").unlink()
        (settings.out / "part-00005.parquet").unlink()
        done = score(settings, quiet)
    assert done.shards_done == done.shards
    assert list(read_scores(settings.out)) == list(read_scores(tmp_path / "one"))


def test_the_judge_gets_queries_of_one_cluster_after_each_other(job):
    judge = Counting()
    with serving(judge) as url:
        score(job(url, max_in_flight=1, shards_together=100), quiet)
    asked = {}
    for query, candidate in judge.pairs:  # in the order of the requests
        asked.setdefault(query, set()).add(candidate)
    sets = list(asked.values())
    shared = [len(a & b) for a, b in itertools.pairwise(sets)]
    rng = np.random.default_rng(0)
    mixed = [sets[place] for place in rng.permutation(len(sets))]
    by_chance = [len(a & b) for a, b in itertools.pairwise(mixed)]
    assert sum(shared) > 1.2 * sum(by_chance)
