"""The bill of a scoring job, before it runs: `unijudge mine plan`.

Pairs and pictures are counted exactly; tokens and FLOPs on a sample of whole queries, by the service; seconds by
scoring that sample. What it cannot know: how fast other replicas are, and whether the service stays as busy as it was.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from miner.known import KnownScores
from miner.plan import plan_of, questions_of
from miner.questions import Question, Questions
from miner.score import open_client
from miner.settings import ScoreSettings
from miner.tally import PairTally, tally_pairs
from unijudge.client import JudgeClient
from unijudge.corpus import Content, Corpus
from unijudge.cost import PairFlops, TokenCount, pair_flops
from unijudge.errors import DataError, JudgeUncounted, SettingsError
from unijudge.leases import lease
from unijudge.verdicts import JudgeIdentity, Verdict

COUNTED_QUERIES = 40
"""Whole queries whose tokens are counted; no model runs for it."""
TABLE_OF_K = (1, 5, 10, 20, 50, 100, 200)


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


@dataclass(frozen=True)
class Bill:
    """A job's pairs, and the price of one."""

    tally: PairTally
    probe: Probe

    def largest_k(self, budget_hours: float) -> int | None:
        """The largest k whose pairs take at most so many replica-hours; None where not even k = 1 does."""
        fits = [k for k in range(1, self.tally.k + 1) if self.hours(k) <= budget_hours]
        return fits[-1] if fits else None

    def hours(self, k: int) -> float:
        """Replica-hours of a job with so many candidates a query."""
        return self.probe.replica_hours(self.tally.to_ask(k))

    def lines(self, replicas: Sequence[int] = (), budget_hours: float | None = None) -> list[str]:
        """For people; the job's own k first, then what a smaller one would cost."""
        k, probe = self.tally.k, self.probe
        pairs, ask = self.tally.pairs(k), self.tally.to_ask(k)
        lines = [
            f"queries           {self.tally.queries:,}; k = {k}; {self.tally.underfilled(k):,} have fewer candidates",
            f"pairs             {pairs:,}; to ask: {ask:,} ({pairs - ask:,} are known, or asked by two rows)",
            f"distinct images   {self.tally.pictures(k):,}",
            *self._cost_lines(ask),
            f"probe             {probe.pairs} pairs, {probe.failed} without a verdict, at {probe.pairs_per_second:.1f} "
            f"pairs/s on {probe.replicas} replicas",
            f"price             {self.hours(k):.2f} replica-hours: GPU-hours where a replica has one GPU",
        ]
        for number in dict.fromkeys([probe.replicas, *replicas]):
            lines.append(f"time              {_duration(self.hours(k) * 3600 / number)} on {number} replicas")
        lines += ["", f"{'k':>5} {'pairs to ask':>16} {'replica-hours':>14}"]
        for other in [*(one for one in TABLE_OF_K if one < k), k]:
            lines.append(f"{other:>5} {self.tally.to_ask(other):>16,} {self.hours(other):>14.2f}")
        if budget_hours is not None:
            best = self.largest_k(budget_hours)
            lines.append(
                f"within {budget_hours:g} replica-hours: k = {best}"
                if best
                else f"within {budget_hours:g} replica-hours: not even k = 1, which takes {self.hours(1):.2f}"
            )
        return lines

    def _cost_lines(self, ask: int) -> list[str]:
        probe = self.probe
        if probe.tokens is None or probe.computed_tokens is None:
            return [f"tokens            not counted: {probe.judge} has none"]
        lines = [
            f"tokens            {probe.tokens * ask:.3g} ({probe.tokens:.0f} a pair); {probe.computed_tokens * ask:.3g} "
            f"({probe.computed_tokens:.0f} a pair) with each query's beginning computed once"
        ]
        if probe.flops is None:
            return [*lines, "compute           not known for this family of models"]
        per = probe.flops
        return [
            *lines,
            f"compute           {per.prefix_cached * ask:.3g} FLOPs; {per.vision_cached * ask:.3g} without the shared "
            f"beginning, {per.naive * ask:.3g} with nothing computed once",
        ]


def make_bill(settings: ScoreSettings, probe_pairs: int, tell: Callable[[str], None] = lambda _: None) -> Bill:
    """Finds the candidates (and keeps them for the job), counts its pairs, and scores a sample.

    Args:
        settings: The job.
        probe_pairs: About how many pairs to score; whole queries are.
        tell: Is told what is being done.

    Raises:
        UnijudgeError: As of the job itself.
    """
    corpus = Corpus(settings.corpus)
    if not len(corpus.queries):
        raise DataError(f"{settings.corpus}: has no queries; there is nothing to score")
    return asyncio.run(_bill(settings, corpus, probe_pairs, tell))


async def _bill(settings: ScoreSettings, corpus: Corpus, probe_pairs: int, tell: Callable[[str], None]) -> Bill:
    async with open_client(settings) as judge:
        plan = plan_of(settings, corpus, judge.identity)
        tell("searching candidates")
        with lease(settings.out):
            questions = await asyncio.to_thread(questions_of, settings, corpus)
        tell("counting pairs")
        done = [settings.out] if (settings.out / "manifest.json").exists() else []
        known = await asyncio.to_thread(KnownScores, [*settings.reuse, *done], plan.judge)
        tally = await asyncio.to_thread(tally_pairs, corpus, questions, known, plan.k)
        tell(f"scoring about {probe_pairs} pairs")
        return Bill(tally, await _probe(judge, corpus, questions, tally, probe_pairs, settings.in_flight))


async def _probe(
    judge: JudgeClient, corpus: Corpus, questions: Questions, tally: PairTally, pairs: int, in_flight: int
) -> Probe:
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
    places = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), number + 1)).astype(int)) if len(rows) else []
    return [questions.of(range(int(rows[place]), int(rows[place]) + 1))[0] for place in places]


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


def _duration(seconds: float) -> str:
    """For people.

    Example:
        >>> _duration(42.4), _duration(5400), _duration(100 * 3600)
        ('42 s', '1.5 h', '4.2 days')
    """
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 1.5 * size or (unit == "h" and seconds >= size):
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
