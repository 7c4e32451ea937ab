"""A complete scoring job."""

import asyncio

from miner.retrieval.pools import repeated_questions
from miner.scoring.plan import open_candidate_input, pair_source_of, plan_of
from miner.scoring.shard_scorer import ShardInputs, ShardScorer
from unijudge.storage.files import publish_json


def scored(settings, corpus, judge, known, *, apart, shards=None):
    """Runs a job without a service, as one process or as Ray's tasks. Returns the number of requested pairs."""
    plan = plan_of(settings, corpus, judge.identity, open_candidate_input(settings, corpus))
    publish_json(settings.out / "manifest.json", plan)
    inputs = ShardInputs(
        plan,
        corpus,
        pair_source_of(settings, corpus, open_candidate_input(settings, corpus)),
        judge,
    )
    wanted = plan.parts.missing(settings.out) if shards is None else shards
    rows = [row for shard in wanted for row in plan.parts.rows_of(shard)]

    async def run():
        whole = ShardScorer(settings, inputs, known, repeated_questions(corpus, rows))
        counts = []
        for shard in wanted:
            repeated = repeated_questions(corpus, plan.parts.rows_of(shard))
            task = ShardScorer(settings, inputs, known, repeated)
            counts += await (task if apart else whole).score(shard)
        return sum(one.asked for one in counts)

    return asyncio.run(run())
