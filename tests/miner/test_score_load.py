"""A scoring job that would have far more in flight than one slow replica answers in time: it ends, and loses none."""

import asyncio
from collections import Counter

from judge_service.backends.scripted import ScriptedJudge
from miner.score import score
from tests.miner.conftest import quiet, serving
from unijudge.prompt import Prompt
from unijudge.scores import read_scores


class Slowing(ScriptedJudge):
    """One request at a time, in order. Quick at first; then one takes ten times as long, as where replicas are lost.

    What was begun is finished, though its caller may have left: that makes what waits behind it late as well.
    """

    def __init__(self, delay_s, quick):
        super().__init__(Prompt(), delay_s=delay_s)
        self._turn = asyncio.Semaphore(1)
        self._quick = quick
        self.inside, self.waiting = 0, []

    async def judge(self, query, candidates):
        self.inside += 1
        self.waiting.append(self.inside)
        try:
            async with self._turn:
                if len(self.waiting) > self._quick:
                    await asyncio.sleep(9 * self._delay_s)
                return await super().judge(query, candidates)
        finally:
            self.inside -= 1


def test_a_job_with_128_in_flight_on_one_slow_replica_finishes(tmp_path, corpus, job, monkeypatch):
    """A request may wait for eight others. All 61 at once would be late for ever, and the job would stop.

    The backoff is short beside the timeout, as it is in a job of five minutes a request.
    """
    monkeypatch.setattr("unijudge.retrying._backoff", lambda _: 0.02)
    slow = Slowing(delay_s=0.005, quick=25)
    with serving(slow) as url:
        changes = {"in_flight": 128, "queries_in_shard": 61, "request_timeout_s": 0.4}
        done = score(job(url, **changes), quiet)
    rows = list(read_scores(tmp_path / "scores"))
    assert done.shards_done == 1
    assert done.counts.errors == 0
    assert max(slow.waiting) > 8, "more were asked than can be answered in time"
    assert len(slow.waiting) > 61, "some were late, and were asked again"
    pairs = Counter((row.query_id, judged.item_id) for row in rows for judged in [*row.positives, *row.candidates])
    assert set(pairs.values()) == {1}
    assert [row.query_id for row in rows] == [query.query_id for query in corpus.queries]
    # and each has the score that a patient job gets from a quick judge
    with serving(ScriptedJudge(Prompt())) as url:
        score(job(url, out=tmp_path / "again"), quiet)
    assert list(read_scores(tmp_path / "again")) == rows
