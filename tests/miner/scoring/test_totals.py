"""The totals of a job count each answer once, through resumed runs and reused verdicts."""

import pytest

from miner.scoring.job import score
from miner.scoring.totals import totals_rows
from tests.miner.conftest import quiet, serving
from tests.miner.counting import Counting
from unijudge.formats.scores import (
    ScoreManifest,
    ScoreTotals,
    ShardCounts,
    read_shard,
    write_shard,
)
from unijudge.judging.verdicts import Cost, Verdict
from unijudge.storage.files import read_json


class Priced(Counting):
    """Computes 30 of 50 tokens for each pair, and 20 more for the first pair of a request."""

    async def judge(self, query, candidates):
        answers = await super().judge(query, candidates)
        computed = [50] + [30] * (len(candidates) - 1)
        return [
            answer.model_copy(
                update={"cost": Cost(prompt_tokens=50, computed_tokens=tokens, images=1)}
            )
            if isinstance(answer, Verdict)
            else answer
            for answer, tokens in zip(answers, computed, strict=True)
        ]


def totals_in(settings):
    return read_json(settings.out / "totals.json", ScoreTotals)


def test_a_resumed_job_has_the_totals_of_all_its_runs(job, tmp_path):
    with serving(Priced()) as url:
        whole = score(job(url, out=tmp_path / "whole"), quiet).totals
        first = score(job(url), quiet).totals
        for name in ("part-00001.parquet", "part-00004.parquet"):
            (job(url).out / name).unlink()
        done = score(job(url), quiet)
    assert first == whole
    assert done.counts.pairs < done.totals.counts.pairs == whole.counts.pairs
    assert done.totals == totals_in(job(url))
    assert done.totals.shards == done.totals.shards_counted == done.shards
    counts = done.totals.counts
    assert counts.cost.prompt_tokens == 50 * counts.asked
    assert counts.cost.images == counts.asked
    assert 30 * counts.asked < counts.cost.computed_tokens < counts.cost.prompt_tokens


def test_a_reused_pair_costs_nothing(job, tmp_path):
    with serving(Priced()) as url:
        small = score(job(url, k=4, out=tmp_path / "small"), quiet).totals.counts
        large = score(
            job(url, k=9, out=tmp_path / "large", reuse=(tmp_path / "small",)), quiet
        ).totals.counts
        again = score(
            job(url, k=9, out=tmp_path / "again", reuse=(tmp_path / "large",)), quiet
        ).totals.counts
    assert large.reused >= small.pairs > 0
    assert large.cost.prompt_tokens == 50 * large.asked == 50 * (large.pairs - large.reused)
    assert (again.asked, again.reused, again.cost) == (0, large.pairs, None)


def test_shards_without_counts_are_reported(job):
    """Shards that an earlier version wrote have no counts."""
    with serving(Priced()) as url:
        settings = job(url)
        before = score(settings, quiet).totals
        plan = read_json(settings.out / "manifest.json", ScoreManifest)
        rows = list(read_shard(settings.out, plan, 0))
        (settings.out / "part-00000.parquet").unlink()
        write_shard(settings.out, plan, 0, rows)
        totals = score(settings, quiet).totals
    assert totals.shards_counted == totals.shards - 1 == before.shards - 1
    assert totals.counts.pairs < before.counts.pairs
    assert ("counted", f"{totals.shards - 1} of {totals.shards} shards have counts") in totals_rows(
        totals
    )


def test_a_judge_without_tokens_has_no_cost(job):
    with serving(Counting()) as url:
        totals = score(job(url), quiet).totals
    assert totals.counts.cost is None
    assert [name for name, _ in totals_rows(totals)] == ["all runs"]


@pytest.mark.parametrize("cost", [None, Cost(prompt_tokens=3, computed_tokens=2, images=1)])
def test_counts_add_up(cost):
    one = ShardCounts(pairs=3, asked=2, errors=1, cost=cost)
    assert ShardCounts() + one == one
    assert (one + one).reused == 2
    assert (one + one).cost == (cost + cost if cost else None)
