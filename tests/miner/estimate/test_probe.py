"""The estimate uses two sizes of a random sample, in which every subset has its share."""

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from miner.estimate.estimate import estimate_cost
from miner.estimate.probe import Timed, _sample, costs
from miner.scoring.job import score
from miner.scoring.pairs import CandidatePair, QueryPairs
from tests.miner.conftest import quiet, serving
from tests.miner.counting import Counting
from unijudge.formats.corpus import Corpus, Item, Query, write_corpus


@pytest.mark.parametrize(("query", "pair"), [(0.05, 0.0), (0.0, 0.01), (0.05, 0.01)])
def test_the_cost_of_a_smaller_k_follows_from_queries_and_pairs(
    job, tmp_path, monkeypatch, query, pair
):
    """The cost of the judge is in the query, in the pair, or in both.

    The estimate is the time of the job with a smaller k, and after reuse.
    """

    async def timed(judge, corpus, some, in_flight, *_):
        pairs = sum(len(question.asked) for question in some)
        return Timed(len(some), pairs, 0, len(some) * query + pairs * pair)

    monkeypatch.setattr("miner.estimate.probe._timed", timed)
    with serving(Counting()) as url:
        made = estimate_cost(job(url, k=12), 50)
        score(job(url, k=5, out=tmp_path / "five"), quiet)
        rest = estimate_cost(job(url, k=12, out=tmp_path / "rest", reuse=(tmp_path / "five",)), 50)
    sent = replace(made.probe, pictures=0), replace(rest.probe, pictures=0)
    for k in (1, 3, 12):
        pairs = made.tally.pairs(k)
        assert made.tally.asking(k) == 61
        seconds = sent[0].seconds_for(made.tally.asking(k), made.tally.to_ask(k), 0, 1)
        assert seconds == pytest.approx(61 * query + made.tally.to_ask(k) * pair)
        assert pairs - 2 <= made.tally.to_ask(k) <= pairs, "one question is asked by two rows"
    asking = rest.tally.asking(12)
    assert rest.tally.asking(1) <= 3 < asking <= 61, "who has all five has nothing to ask at k = 1"
    assert sent[1].seconds_for(asking, rest.tally.to_ask(12), 0, 1) == pytest.approx(
        asking * query + rest.tally.to_ask(12) * pair
    )


def test_costs_are_never_negative_and_add_up():
    assert costs(Timed(10, 100, 0, 1.0), Timed(10, 20, 0, 2.0)) == (3.0 / 20, 0.0), (
        "more pairs took less"
    )
    assert costs(Timed(10, 100, 0, 9.0), Timed(10, 20, 0, 0.1)) == (0.0, 9.1 / 120), (
        "all in the pairs, and more"
    )
    assert costs(Timed(3, 6, 0, 1.2), Timed(0, 0, 0, 0.0)) == (0.0, pytest.approx(0.2))
    assert costs(Timed(3, 3, 0, 1.2), Timed(3, 3, 0, 1.8)) == (0.0, pytest.approx(0.5))


def test_a_sample_has_its_share_of_each_subset(tmp_path):
    """The directions of captioned images alternate, so nearly all evenly spaced rows would have the same direction."""
    items = [Item(f"i{number}", ("s",), f"item {number}") for number in range(3)]
    names = ["i2t", "t2i"] * 400 + ["rare"] * 40
    queries = [
        Query(f"q{number}", name, ("i0",), f"query {number}") for number, name in enumerate(names)
    ]
    write_corpus(tmp_path / "c", items, queries, images=tmp_path, rejects=0, source="by hand")
    corpus = Corpus(tmp_path / "c")

    class All:
        def of(self, rows):
            return [
                QueryPairs(row, [CandidatePair(0, 0.5, None), CandidatePair(1, 0.4, 0)])
                for row in rows
            ]

    tally = SimpleNamespace(candidates_Q=np.ones(840, np.int64))
    for number in (42, 41, 21):
        rows = [question.row for question in _sample(corpus, All(), tally, number)]
        counts = Counter(names[row] for row in rows)
        assert len(set(rows)) == number
        for name, size in Counter(names).items():
            assert abs(counts[name] - number * size / 840) < 1
        assert [question.row for question in _sample(corpus, All(), tally, number)] == rows, (
            "the same on every run"
        )
    halves = Counter(names[question.row] for question in _sample(corpus, All(), tally, 84)[:42])
    assert min(halves["i2t"], halves["t2i"]) > 10, "in random order"
