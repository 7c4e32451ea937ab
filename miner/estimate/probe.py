"""Measures the cost of a sample of a job's pairs: seconds by scoring, tokens and FLOPs by the counts of the service."""

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
from miner.estimate.tokens import computed_share, mean_tokens
from miner.scoring.pairs import PairSource, QueryPairs
from miner.strata import stratified
from unijudge.client.client import JudgeClient
from unijudge.content import Content
from unijudge.errors import DataError, JudgeRefused, JudgeUncounted, SettingsError
from unijudge.formats.corpus import Corpus
from unijudge.judging.flops import PairFlops, TokenCount, pair_flops, wasted_tokens_of
from unijudge.judging.verdicts import Cost, JudgeIdentity, PairError, Verdict, total_cost

COUNTED_QUERIES = 40
"""Number of whole queries whose tokens are counted. Counting does not run the model."""


@dataclass(frozen=True)
class Probe:
    """The cost of a sample of pairs."""

    judge: JudgeIdentity
    pairs: int
    failed: int
    """Number of pairs without a verdict."""
    reason: str
    """The reason of the first pair without a verdict; empty if all pairs have verdicts."""
    seconds: float
    """Seconds spent scoring, excluding image uploads."""
    query_seconds: float
    """Seconds for a query besides its pairs, with all replicas, because the prefix of a query is computed once."""
    pair_seconds: float
    """Seconds for a further pair of a query, with all replicas."""
    pictures: int
    """Number of distinct images of the sample."""
    picture_seconds: float
    """Seconds spent uploading images."""
    replicas: int
    """Number of replicas of the service."""
    tokens: float | None
    """Mean tokens of a pair; None if the judge does not count tokens."""
    computed_tokens: float | None
    """Mean tokens of a pair that the judge computes, as measured in the scored sample; None without counts. The prefix
    of a query is computed once."""
    flops: PairFlops | None
    """Mean FLOPs of a pair; None if the cost of a token is unknown for this model."""

    @property
    def pairs_per_second(self) -> float:
        """Pairs per second of all replicas together."""
        return self.pairs / self.seconds

    def seconds_for(self, queries: int, pairs: int, pictures: int, replicas: int) -> float:
        """Returns the seconds for scoring pairs and uploading images. More replicas do not make uploads faster."""
        sending = 0.0
        if self.pictures:
            sending = pictures * self.picture_seconds / self.pictures
        scoring = queries * self.query_seconds + pairs * self.pair_seconds
        return sending + scoring * self.replicas / replicas


async def probe(
    judge: JudgeClient,
    corpus: Corpus,
    questions: PairSource,
    tally: PairCounts,
    pairs: int,
    in_flight: int,
) -> Probe:
    """Scores a sample of a job, and counts the tokens of a sample.

    Whole queries are timed, and equally many short queries with one or two pairs each. The two times give the cost of a
    query and the cost of a pair. All queries are different, so that no query is in a cache.

    Args:
        judge: The service.
        corpus: The corpus of the job.
        questions: The questions of the job.
        tally: The counts of the job's pairs.
        pairs: The approximate number of pairs to score in whole queries. Queries are drawn at random, with a
            proportional share of each subset. More are drawn if they would not keep all replicas busy.
        in_flight: Number of queries that the job sends at once.

    Raises:
        SettingsError: The job has no pairs to ask.
        JudgeError: The judge gave no answer.
    """
    asking = np.count_nonzero(tally.candidates_Q)
    if not asking:
        raise SettingsError(
            "nothing to probe: no query of this job has pairs to ask. Check pool, margin and cascade"
        )
    wanted = round(pairs / (tally.pairs(tally.k) / asking))
    number = max(wanted, in_flight, 2 * judge.info.replicas)
    first, *others = _sample(corpus, questions, tally, 2 * number + 1)
    whole, short = (
        others[: -(-len(others) // 2)] or [first],
        [_short(one) for one in others[-(-len(others) // 2) :]],
    )
    pictures, picture_seconds = await _sent(judge, corpus, [first, *whole, *short])
    reasons: list[str] = []
    if others:
        # The first request is slow: it compiles kernels.
        await _timed(judge, corpus, [first], in_flight, reasons)
        reasons.clear()
    large = await _timed(judge, corpus, whole, in_flight, reasons)
    small = await _timed(judge, corpus, short, in_flight, reasons)
    counts, sizes_N2, flops = await _counts(
        judge, corpus, _sample(corpus, questions, tally, COUNTED_QUERIES)
    )
    tokens = mean_tokens(counts, sizes_N2, tally) if counts else None
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
        tokens=tokens,
        computed_tokens=None if tokens is None else tokens * computed_share(counts, large.cost),
        flops=flops,
    )


@dataclass(frozen=True)
class Timed:
    """The time of scoring some queries."""

    queries: int
    pairs: int
    failed: int
    """Number of pairs without a verdict."""
    seconds: float
    cost: Cost | None = None
    """The cost of the verdicts; None if the judge does not count."""


def costs(large: Timed, small: Timed) -> tuple[float, float]:
    """Returns the cost a of a query and b of a pair in seconds, by solving t = a·queries + b·pairs for both times.

    If noise makes a cost negative, this cost is 0 and the other cost covers all seconds. If both samples have the same
    number of pairs for each query, the cost of a query is 0.

    Example:
        >>> [round(cost, 6) for cost in costs(Timed(10, 110, 0, 3.2), Timed(10, 20, 0, 1.4))]
        [0.1, 0.02]
    """
    scale = large.queries * small.pairs - small.queries * large.pairs
    queries, pairs, seconds = (
        large.queries + small.queries,
        large.pairs + small.pairs,
        large.seconds + small.seconds,
    )
    if not scale:
        return 0.0, seconds / pairs
    query_seconds = (large.seconds * small.pairs - small.seconds * large.pairs) / scale
    pair_seconds = (large.queries * small.seconds - small.queries * large.seconds) / scale
    if query_seconds < 0:
        return 0.0, seconds / pairs
    if pair_seconds < 0:
        return seconds / queries, 0.0
    return query_seconds, pair_seconds


def _sample(
    corpus: Corpus, questions: PairSource, tally: PairCounts, number: int
) -> list[QueryPairs]:
    """Draws queries with pairs to ask, with a proportional share of each subset, in random order."""
    rows = np.flatnonzero(tally.candidates_Q)
    subsets = corpus.queries.table["subset"].take(pa.array(rows)).to_pylist()
    return [
        questions.of(range(row, row + 1))[0] for row in rows[stratified(subsets, number)].tolist()
    ]


def _short(question: QueryPairs) -> QueryPairs:
    """Returns a query with its first two pairs, or with the first pair if it has only two."""
    return replace(question, asked=question.asked[: max(1, min(2, len(question.asked) - 1))])


async def _sent(
    judge: JudgeClient, corpus: Corpus, some: Sequence[QueryPairs]
) -> tuple[int, float]:
    """Uploads the images of some queries. Returns the number of distinct images and the seconds of the upload."""
    shown: dict[str, Content] = {}
    for question in some:
        with suppress(DataError):
            query, items = await asyncio.to_thread(_contents, corpus, question)
            shown |= {
                hashlib.sha256(one.image).hexdigest(): one for one in (query, *items) if one.image
            }
    begun = time.monotonic()
    await judge.store(shown.values())
    return len(shown), time.monotonic() - begun


async def _timed(
    judge: JudgeClient,
    corpus: Corpus,
    some: Sequence[QueryPairs],
    in_flight: int,
    reasons: list[str],
) -> Timed:
    """Scores some queries, at most `in_flight` at once. Appends reasons of pairs without a verdict to `reasons`."""
    room = asyncio.Semaphore(in_flight)

    async def verdicts(question: QueryPairs) -> list[Verdict]:
        async with room:
            return await _verdicts(judge, corpus, question, reasons)

    begun = time.monotonic()
    judged = [verdict for found in await asyncio.gather(*map(verdicts, some)) for verdict in found]
    seconds = time.monotonic() - begun
    pairs = sum(len(question.asked) for question in some)
    cost = total_cost(verdict.cost for verdict in judged)
    return Timed(len(some), pairs, pairs - len(judged), seconds, cost)


async def _verdicts(
    judge: JudgeClient, corpus: Corpus, question: QueryPairs, reasons: list[str]
) -> list[Verdict]:
    """Returns the verdicts for a query. As in the job, unreadable or refused pairs get no verdict."""
    try:
        query, items = await asyncio.to_thread(_contents, corpus, question)
        answers = await judge.judge(query, items) if items else []
    except (DataError, JudgeRefused) as error:
        reasons.append(str(error))
        return []
    reasons += [
        f"{answer.code}: {answer.message}" for answer in answers if isinstance(answer, PairError)
    ]
    if len(items) < len(question.asked):
        reasons.append(
            f"{corpus.folder}: {len(question.asked) - len(items)} items of a query cannot be read"
        )
    return [answer for answer in answers if isinstance(answer, Verdict)]


async def _counts(
    judge: JudgeClient, corpus: Corpus, some: Sequence[QueryPairs]
) -> tuple[list[list[TokenCount]], list[tuple[int, int]], PairFlops | None]:
    """Returns the token counts of each readable query's pairs, their characters and images, and the mean FLOPs."""
    counts: list[list[TokenCount]] = []
    sizes_N2: list[tuple[int, int]] = []
    for question in some:
        try:
            query, items = await asyncio.to_thread(_contents, corpus, question)
            found = await judge.count(query, items) if items else []
        except JudgeUncounted:
            return [], [], None
        except (DataError, JudgeRefused):
            continue
        counts.append([one for one in found if isinstance(one, TokenCount)])
        for item, one in zip(items, found, strict=True):
            if isinstance(one, TokenCount):
                characters = len(query.text or "") + len(item.text or "")
                sizes_N2.append((characters, bool(query.image) + bool(item.image)))
    counts = [found for found in counts if found]
    shape = judge.info.shape
    if not counts or shape is None:
        return counts, sizes_N2, None
    wasted_tokens = wasted_tokens_of(judge.identity.backend)
    prices = [
        pair_flops(
            shape,
            count,
            candidates_of_query=len(found),
            queries_of_candidate=1,
            wasted_tokens=wasted_tokens,
        )
        for found in counts
        for count in found
    ]
    return (
        counts,
        sizes_N2,
        PairFlops(
            naive=fmean(one.naive for one in prices),
            vision_cached=fmean(one.vision_cached for one in prices),
            prefix_cached=fmean(one.prefix_cached for one in prices),
        ),
    )


def _contents(corpus: Corpus, question: QueryPairs) -> tuple[Content, list[Content]]:
    """Returns the contents of a query and of its readable items.

    Raises:
        DataError: The query cannot be read.
    """
    query, items = corpus.content(corpus.queries[question.row]), []
    for asked in question.asked:
        with suppress(DataError):
            items.append(corpus.content(corpus.items[asked.row]))
    return query, items
