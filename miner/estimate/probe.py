"""What a sample of a job's pairs costs: seconds by scoring it, tokens and FLOPs by asking the service to count."""

import asyncio
import hashlib
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np
import pyarrow as pa

from miner.estimate.pair_counts import PairCounts
from miner.scoring.pairs import PairSource, QueryPairs
from miner.strata import stratified
from unijudge.client.client import JudgeClient
from unijudge.content import Content
from unijudge.errors import DataError, JudgeRefused, JudgeUncounted, SettingsError
from unijudge.formats.corpus import Corpus
from unijudge.judging.flops import PairFlops, TokenCount, pair_flops, sharing_of
from unijudge.judging.verdicts import JudgeIdentity, PairError, Verdict

COUNTED_QUERIES = 40
"""Whole queries whose tokens are counted; no model runs for it."""


@dataclass(frozen=True)
class Probe:
    """What a sample of pairs cost."""

    judge: JudgeIdentity
    pairs: int
    failed: int
    """Of these, without a verdict."""
    reason: str
    """Why the first of those has none; empty where all have one."""
    seconds: float
    """That scoring took, when the service had the pictures."""
    query_seconds: float
    """Of all replicas together: what a query costs beside its pairs, because its beginning is computed once."""
    pair_seconds: float
    """Likewise: what one more pair of a query costs."""
    pictures: int
    """Distinct ones of these pairs."""
    picture_seconds: float
    """That sending them took."""
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

    def seconds_for(self, queries: int, pairs: int, pictures: int, replicas: int) -> float:
        """What scoring so many pairs of so many queries takes; pictures travel no faster to more replicas."""
        sending = pictures * self.picture_seconds / self.pictures if self.pictures else 0.0
        scoring = queries * self.query_seconds + pairs * self.pair_seconds
        return sending + scoring * self.replicas / replicas


async def probe(
    judge: JudgeClient, corpus: Corpus, questions: PairSource, tally: PairCounts, pairs: int, in_flight: int
) -> Probe:
    """Scores a sample of a job, and counts the tokens of some.

    Two sizes are timed, on different queries, so that nothing is known from before: whole queries, and as many with
    one or two pairs each. Their two times give what a query costs and what a pair does.

    Args:
        judge: The service.
        corpus: Of the job.
        questions: What it will ask.
        tally: How many pairs these are.
        pairs: About how many to score in whole queries, drawn at random, of each subset its share. More where these
            queries would not keep all replicas busy.
        in_flight: Queries that the job has wait at once.

    Raises:
        SettingsError: Nothing is asked.
        JudgeError: The judge gave no answer.
    """
    asking = np.count_nonzero(tally.candidates_Q)
    if not asking:
        raise SettingsError("nothing to probe: no query of this job has anything to ask")
    wanted = round(pairs / (tally.pairs(tally.k) / asking))
    number = max(wanted, in_flight, 2 * judge.info.replicas)
    first, *others = _sample(corpus, questions, tally, 2 * number + 1)
    whole, short = others[: -(-len(others) // 2)] or [first], [_short(one) for one in others[-(-len(others) // 2) :]]
    pictures, picture_seconds = await _sent(judge, corpus, [first, *whole, *short])
    reasons: list[str] = []
    if others:
        await _timed(judge, corpus, [first], in_flight, reasons)  # the first request pays for compiling and waking up
        reasons.clear()
    large = await _timed(judge, corpus, whole, in_flight, reasons)
    small = await _timed(judge, corpus, short, in_flight, reasons)
    counts, flops = await _counts(judge, corpus, _sample(corpus, questions, tally, COUNTED_QUERIES))
    query_seconds, pair_seconds = costs(large, small)
    return Probe(
        judge=judge.identity,
        pairs=large.pairs + small.pairs,
        failed=large.failed + small.failed,
        reason=reasons[0] if reasons else "",
        seconds=large.seconds + small.seconds,
        query_seconds=query_seconds,
        pair_seconds=pair_seconds,
        pictures=pictures,
        picture_seconds=picture_seconds,
        replicas=judge.info.replicas,
        tokens=fmean(c.tokens for found in counts for c in found) if counts else None,
        computed_tokens=_computed(counts) if counts else None,
        flops=flops,
    )


@dataclass(frozen=True)
class Timed:
    """How long some queries took."""

    queries: int
    pairs: int
    failed: int
    """Of these, without a verdict."""
    seconds: float


def costs(large: Timed, small: Timed) -> tuple[float, float]:
    """What a query and what a pair costs, in seconds, so that both times come out: t = a·queries + b·pairs.

    Where the two sizes are of one shape, or noise would make one cost negative, that cost is 0 and the other carries
    everything.

    Example:
        >>> [round(cost, 6) for cost in costs(Timed(10, 110, 0, 3.2), Timed(10, 20, 0, 1.4))]
        [0.1, 0.02]
    """
    scale = large.queries * small.pairs - small.queries * large.pairs
    queries, pairs, seconds = large.queries + small.queries, large.pairs + small.pairs, large.seconds + small.seconds
    if not scale:
        return 0.0, seconds / pairs
    query_seconds = (large.seconds * small.pairs - small.seconds * large.pairs) / scale
    pair_seconds = (large.queries * small.seconds - small.queries * large.seconds) / scale
    if query_seconds < 0:
        return 0.0, seconds / pairs
    if pair_seconds < 0:
        return seconds / queries, 0.0
    return query_seconds, pair_seconds


def _sample(corpus: Corpus, questions: PairSource, tally: PairCounts, number: int) -> list[QueryPairs]:
    """Queries that have something to ask, drawn at random, of each subset its share; in random order."""
    rows = np.flatnonzero(tally.candidates_Q)
    subsets = corpus.queries.table["subset"].take(pa.array(rows)).to_pylist()
    return [questions.of(range(row, row + 1))[0] for row in rows[stratified(subsets, number)].tolist()]


def _short(question: QueryPairs) -> QueryPairs:
    """The same query with the pairs of k = 1, or with one where it has no more."""
    return replace(question, asked=question.asked[: max(1, min(2, len(question.asked) - 1))])


async def _sent(judge: JudgeClient, corpus: Corpus, some: Sequence[QueryPairs]) -> tuple[int, float]:
    """How many distinct pictures some queries need, and the seconds that sending them took."""
    shown: dict[str, Content] = {}
    for question in some:
        with suppress(DataError):
            query, items = await asyncio.to_thread(_contents, corpus, question)
            shown |= {hashlib.sha256(one.image).hexdigest(): one for one in (query, *items) if one.image}
    begun = time.monotonic()
    await judge.store(shown.values())
    return len(shown), time.monotonic() - begun


async def _timed(
    judge: JudgeClient, corpus: Corpus, some: Sequence[QueryPairs], in_flight: int, reasons: list[str]
) -> Timed:
    """Scores some queries, as many at once as the job has waiting.

    Reasons of pairs without a verdict are added to `reasons`.
    """
    room = asyncio.Semaphore(in_flight)

    async def verdicts(question: QueryPairs) -> int:
        async with room:
            return await _verdicts(judge, corpus, question, reasons)

    begun = time.monotonic()
    judged = sum(await asyncio.gather(*map(verdicts, some)))
    pairs = sum(len(question.asked) for question in some)
    return Timed(len(some), pairs, pairs - judged, time.monotonic() - begun)


async def _verdicts(judge: JudgeClient, corpus: Corpus, question: QueryPairs, reasons: list[str]) -> int:
    """How many pairs of a query got one; as in the job, what cannot be read or is refused got none, for a reason."""
    try:
        query, items = await asyncio.to_thread(_contents, corpus, question)
        answers = await judge.judge(query, items) if items else []
    except (DataError, JudgeRefused) as error:
        reasons.append(str(error))
        return 0
    reasons += [f"{answer.code}: {answer.message}" for answer in answers if isinstance(answer, PairError)]
    if len(items) < len(question.asked):
        reasons.append(f"{corpus.folder}: {len(question.asked) - len(items)} items of a query cannot be read")
    return sum(isinstance(answer, Verdict) for answer in answers)


async def _counts(
    judge: JudgeClient, corpus: Corpus, some: Sequence[QueryPairs]
) -> tuple[list[list[TokenCount]], PairFlops | None]:
    """Of each query that can be read the counts of its pairs, and what a pair costs on average."""
    counts: list[list[TokenCount]] = []
    for question in some:
        try:
            query, items = await asyncio.to_thread(_contents, corpus, question)
            found = await judge.count(query, items) if items else []
        except JudgeUncounted:
            return [], None
        except (DataError, JudgeRefused):
            continue
        counts.append([one for one in found if isinstance(one, TokenCount)])
    counts = [found for found in counts if found]
    shape = judge.info.shape
    if not counts or shape is None:
        return counts, None
    sharing = sharing_of(judge.identity.backend, judge.identity.order)
    prices = [
        pair_flops(shape, count, candidates_of_query=len(found), queries_of_candidate=1, **sharing)
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
    total = 0
    for found in counts:
        total += found[0].shared_tokens
        total += sum(count.tokens - count.shared_tokens for count in found)
    return total / sum(map(len, counts))


def _contents(corpus: Corpus, question: QueryPairs) -> tuple[Content, list[Content]]:
    """A query, and those of its items that can be read.

    Raises:
        DataError: The query cannot.
    """
    query, items = corpus.content(corpus.queries[question.row]), []
    for asked in question.asked:
        with suppress(DataError):
            items.append(corpus.content(corpus.items[asked.row]))
    return query, items
