"""Reranks an evaluation's best items by a judge's log-odds, and measures what that gains and what it loses.

The judge is a service: as it comes, or with a trained reranker's weights. Nothing of the embedder is run again.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from trainer.measuring_settings import RerankSettings
from unijudge.client import JudgeClient
from unijudge.corpus import Corpus
from unijudge.errors import DataError, UnijudgeError
from unijudge.files import file_sha256, publish_json
from unijudge.keys import read_key
from unijudge.metrics import gold_rank, mean_reciprocal_rank, precision_at_1
from unijudge.provenance import Provenance
from unijudge.rankings import Evaluation, Ranking, read_rankings, write_rankings
from unijudge.verdicts import JudgeIdentity, Verdict

WAITING = 1024
"""Queries that exist as tasks at once."""


class RerankReport(Evaluation):
    """metrics.json: what became of every subset.

    `gained`: share of queries whose first item is right now and was wrong; `lost`: the other way round; `in_top`: share
    with a positive among the judged items, beyond which no reranking can go.
    """

    rankings: str
    judge: JudgeIdentity
    top: int
    unjudged: int
    """Pairs without a verdict; such an item goes behind all judged ones."""


def rerank(settings: RerankSettings, report: Callable[[int, int], None]) -> RerankReport:
    """Writes metrics.json and rankings.parquet.

    Args:
        settings: The job.
        report: Is called with (queries done, queries in all).

    Raises:
        DataError: The rankings are of another corpus.
        JudgeError: The service cannot be used.
    """
    corpus = Corpus(settings.corpus)
    rankings = list(read_rankings(settings.rankings / "rankings.parquet"))
    ranked = file_sha256(settings.rankings / "rankings.parquet")
    known = {(query.query_id, query.subset) for query in corpus.queries}
    if (
        not rankings
        or not {(ranking.query_id, ranking.subset) for ranking in rankings} <= known
        or not all(item_id in corpus.row_of for ranking in rankings for item_id in ranking.item_ids)
    ):
        raise DataError(
            f"{settings.rankings}: ranks other queries or items than those of {settings.corpus}; give the corpus that "
            "was evaluated"
        )
    try:
        after, judge = asyncio.run(_rerank(settings, corpus, rankings, report))
    except* UnijudgeError as group:
        raise next(iter(group.exceptions)) from None
    write_rankings(settings.out / "rankings.parquet", after)
    pairs: dict[str, list[tuple[Ranking, Ranking]]] = defaultdict(list)
    for one, other in zip(rankings, after, strict=True):
        pairs[one.subset].append((one, other))
    positives = {query.query_id: set(query.positive_ids) for query in corpus.queries}
    in_top = {one.query_id for one in rankings if positives[one.query_id] & {*one.item_ids[: settings.top]}}
    made = RerankReport(
        corpus=str(settings.corpus),
        rankings=str(settings.rankings),
        judge=judge,
        top=settings.top,
        subsets={name: _measures(found, in_top) for name, found in sorted(pairs.items())},
        inputs={"corpus": corpus.fingerprint, "rankings": ranked},
        rankings_sha256=file_sha256(settings.out / "rankings.parquet"),
        made=Provenance.now(settings),
        unjudged=sum(log_odds is None for ranking in after for log_odds in ranking.log_odds or []),
    )
    publish_json(settings.out / "metrics.json", made)
    return made


async def _rerank(
    settings: RerankSettings, corpus: Corpus, rankings: list[Ranking], report: Callable[[int, int], None]
) -> tuple[list[Ranking], JudgeIdentity]:
    queries = {query.query_id: query for query in corpus.queries}
    slots = asyncio.Semaphore(settings.in_flight)
    done = 0

    async def one(judge: JudgeClient, ranking: Ranking) -> Ranking:
        nonlocal done
        async with slots:
            query = queries[ranking.query_id]
            items = [corpus.items[corpus.row_of[item_id]] for item_id in ranking.item_ids[: settings.top]]
            answers = await judge.judge(corpus.content(query), [corpus.content(item) for item in items])
            done += 1
            report(done, len(rankings))
        log_odds = [answer.log_odds if isinstance(answer, Verdict) else None for answer in answers]
        return reranked(ranking, log_odds, query.positive_ids)

    made: list[Ranking] = []
    async with JudgeClient(settings.service, key=read_key(settings.key_file)) as judge:
        for start in range(0, len(rankings), WAITING):
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(judge, ranking)) for ranking in rankings[start : start + WAITING]]
            made += [task.result() for task in tasks]
        return made, judge.identity


def reranked(ranking: Ranking, log_odds: list[float | None], positives: tuple[str, ...]) -> Ranking:
    """A ranking with its first items in the order of their log-odds, those without any behind them.

    Args:
        ranking: The embedder's.
        log_odds: Of its first items, in its order.
        positives: The items that are right.

    Returns:
        The new ranking. Its gold rank counts ties against the positive; it stays as it was if no positive was judged.
    """
    count = len(log_odds)
    scores = np.array([-np.inf if value is None else value for value in log_odds])
    order = [*np.argsort(-scores, kind="stable").tolist(), *range(count, len(ranking.item_ids))]
    gold = [place for place, item_id in enumerate(ranking.item_ids[:count]) if item_id in positives]
    return replace(
        ranking,
        gold_rank=gold_rank(scores, gold) if gold else ranking.gold_rank,
        item_ids=[ranking.item_ids[place] for place in order],
        similarities=[ranking.similarities[place] for place in order],
        log_odds=[log_odds[place] for place in order if place < count],
    )


def _measures(found: list[tuple[Ranking, Ranking]], in_top: set[str]) -> dict[str, float]:
    before_Q, after_Q = (np.array([pair[side].gold_rank for pair in found]) for side in (0, 1))
    return {
        "queries": len(found),
        "in_top": float(np.mean([before.query_id in in_top for before, _ in found])),
        "precision@1 before": precision_at_1(before_Q),
        "precision@1": precision_at_1(after_Q),
        "gained": float(((before_Q > 1) & (after_Q == 1)).mean()),
        "lost": float(((before_Q == 1) & (after_Q > 1)).mean()),
        "mrr before": mean_reciprocal_rank(before_Q),
        "mrr": mean_reciprocal_rank(after_Q),
    }
