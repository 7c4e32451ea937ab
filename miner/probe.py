"""What a sample of a job's pairs costs: seconds by scoring it, tokens and FLOPs by asking the service to count."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from miner.questions import Question, Questions
from miner.tally import PairTally
from unijudge.client import JudgeClient
from unijudge.corpus import Content, Corpus
from unijudge.cost import PairFlops, TokenCount, pair_flops
from unijudge.errors import JudgeUncounted, SettingsError
from unijudge.verdicts import JudgeIdentity, Verdict

COUNTED_QUERIES = 40
"""Whole queries whose tokens are counted; no model runs for it."""


@dataclass(frozen=True)
class Probe:
    """What a sample of pairs cost."""

    judge: JudgeIdentity
    pairs: int
    failed: int
    """Of these, without a verdict."""
    seconds: float
    replicas: int
    """That the service had."""
    tokens: float | None
    """Mean of a pair; None where the judge does not count."""
    computed_tokens: float | None
    """Mean of a pair, when the beginning that a query's candidates share is computed once."""
    flops: PairFlops | None
    """Mean of a pair; None where it is not known what this model's tokens cost."""

    @property
    def pairs_per_second(self) -> float:
        """Of all replicas together."""
        return self.pairs / self.seconds

    def replica_hours(self, pairs: int) -> float:
        """What scoring so many pairs takes at this rate."""
        return pairs / self.pairs_per_second * self.replicas / 3600


async def probe(
    judge: JudgeClient, corpus: Corpus, questions: Questions, tally: PairTally, pairs: int, in_flight: int
) -> Probe:
    """Scores about so many pairs of whole queries, evenly spread over the job, and counts the tokens of some."""
    per_query = tally.pairs(tally.k) / tally.queries
    some = _sample(questions, tally, max(2, round(pairs / per_query)))
    if not some:
        raise SettingsError("nothing to probe: no query of this job has anything to ask")
    room = asyncio.Semaphore(in_flight)

    async def scored(question: Question) -> list[bool]:
        async with room:
            query, items = await asyncio.to_thread(_contents, corpus, question)
            return [isinstance(answer, Verdict) for answer in await judge.judge(query, items)]

    await scored(some[0])  # the first request of all pays for compiling and waking up
    begun = time.monotonic()
    answers = [one for found in await asyncio.gather(*map(scored, some[1:])) for one in found]
    seconds = time.monotonic() - begun
    counts, flops = await _counts(judge, corpus, _sample(questions, tally, COUNTED_QUERIES))
    return Probe(
        judge=judge.identity,
        pairs=len(answers),
        failed=answers.count(False),
        seconds=seconds,
        replicas=judge.info.replicas,
        tokens=fmean(c.tokens for found in counts for c in found) if counts else None,
        computed_tokens=_computed(counts) if counts else None,
        flops=flops,
    )


def _sample(questions: Questions, tally: PairTally, number: int) -> list[Question]:
    """Evenly spread queries that have something to ask, one more than asked for: the first one warms up."""
    rows = np.flatnonzero(tally.candidates_Q)
    if not len(rows):
        return []
    places = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), number + 1)).astype(int))
    return [questions.of(range(row, row + 1))[0] for row in rows[places].tolist()]


async def _counts(
    judge: JudgeClient, corpus: Corpus, some: Sequence[Question]
) -> tuple[list[list[TokenCount]], PairFlops | None]:
    """Of each query the counts of its pairs, and what a pair costs on average."""
    counts: list[list[TokenCount]] = []
    try:
        for question in some:
            found = await judge.count(*await asyncio.to_thread(_contents, corpus, question))
            counts.append([one for one in found if isinstance(one, TokenCount)])
    except JudgeUncounted:
        return [], None
    counts = [found for found in counts if found]
    if not counts or judge.shape is None:
        return counts, None
    prices = [
        pair_flops(judge.shape, count, candidates_of_query=len(found), queries_of_candidate=1)
        for found in counts
        for count in found
    ]
    return counts, PairFlops(
        naive=fmean(one.naive for one in prices),
        vision_cached=fmean(one.vision_cached for one in prices),
        prefix_cached=fmean(one.prefix_cached for one in prices),
    )


def _computed(counts: Sequence[Sequence[TokenCount]]) -> float:
    """Mean tokens of a pair when what a query's candidates share is computed once."""
    total = sum(found[0].shared_tokens + sum(c.tokens - c.shared_tokens for c in found) for found in counts)
    return total / sum(map(len, counts))


def _contents(corpus: Corpus, question: Question) -> tuple[Content, list[Content]]:
    items = [corpus.content(corpus.items[asked.row]) for asked in question.asked]
    return corpus.content(corpus.queries[question.row]), items
