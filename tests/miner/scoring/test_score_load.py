"""A scoring job has more requests in flight than one slow replica answers in time.

The job finishes without losing a pair.
"""

import asyncio
from collections import Counter

import pytest

from judge_service.backends.scripted import ScriptedJudge
from miner.scoring.job import score
from tests.miner.conftest import quiet, serving
from unijudge.client.concurrency import AdaptiveLimit
from unijudge.formats.scores import read_scores
from unijudge.judging.prompt import Prompt


class OneAtATime(ScriptedJudge):
    """A judge that answers requests one after the other."""

    def __init__(self, delay_s):
        super().__init__(Prompt(), delay_s=delay_s)
        self._turn = asyncio.Semaphore(1)

    async def judge(self, query, candidates):
        async with self._turn:
            return await super().judge(query, candidates)


@pytest.mark.parametrize("first", [4, 128])
def test_a_job_with_128_in_flight_on_one_slow_replica_finishes(
    tmp_path, corpus, job, monkeypatch, first
):
    """At most eight queries are answered in time. 61 wait, and a client may start with all of them."""
    refused = []
    halve = AdaptiveLimit.refused

    def seen(self, halvings):
        refused.append(halvings)
        halve(self, halvings)

    monkeypatch.setattr(AdaptiveLimit, "refused", seen)
    monkeypatch.setattr("miner.scoring.service.FIRST_IN_FLIGHT", first)
    with serving(OneAtATime(delay_s=0.05)) as url:
        changes = {
            "max_in_flight": 128,
            "shard_size": 61,
            "request_timeout_s": 0.4,
            "retry_for_s": 60,
        }
        done = score(job(url, **changes), quiet)
    rows = list(read_scores(tmp_path / "scores"))
    assert done.shards_done == 1
    assert done.counts.errors == 0
    assert refused or first == 4, "all at once cannot be answered in time"
    pairs = Counter(
        (row.query_id, judged.item_id)
        for row in rows
        for judged in [*row.positives, *row.candidates]
    )
    assert set(pairs.values()) == {1}
    assert [row.query_id for row in rows] == [query.query_id for query in corpus.queries]
    # Each pair has the score that a patient job gets from a fast judge.
    with serving(ScriptedJudge(Prompt())) as url:
        score(job(url, out=tmp_path / "again"), quiet)
    assert list(read_scores(tmp_path / "again")) == rows
