"""Reads mined rows and rankings for display: images, captions, ranks, scores and verdicts."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from demo.report.results import BETA, NEGATIVES, Truth
from miner.selection.negatives import score_of
from unijudge.content import Content
from unijudge.formats.corpus import Corpus, Query
from unijudge.formats.rankings import Ranking, read_rankings
from unijudge.formats.scores import Judged, JudgedQuery, read_scores
from unijudge.formats.triples import Triple, read_triples
from unijudge.judging.verdicts import sigmoid


@dataclass(frozen=True)
class Card:
    """One item for display."""

    content: Content
    rank: int | None
    similarity: float | None
    score: float | None
    verdict: str
    """`positive`, `chosen`, `dropped`, `passed over`; empty in a ranking."""
    right: bool


@dataclass(frozen=True)
class Strip:
    """A query and a row of items for display."""

    subset: str
    query: Content
    cards: list[Card]


def mined_strips(out: Path, subsets: tuple[str, ...], *, cards: int = 8) -> list[Strip]:
    """Returns one row for each subset: the first in which the filter dropped a false negative among the best items."""
    truth, folder = Truth.of_seed(out, 0), out / "train-0"
    triples = {
        row.query_id: row for row in read_triples(folder / "unime_v2", truth.corpus.fingerprint)
    }
    strips: dict[str, Strip] = {}
    for row in read_scores(folder / "scores"):
        if row.subset in subsets and row.subset not in strips and row.query_id in triples:
            strip = _strip(truth, row, triples[row.query_id], cards)
            if any(card.verdict == "dropped" and card.right for card in strip.cards):
                strips[row.subset] = strip
    return [strips[subset] for subset in subsets if subset in strips]


def _strip(truth: Truth, row: JudgedQuery, triple: Triple, cards: int) -> Strip:
    query = truth.query(row.query_id)
    chosen = {negative.item_id for negative in triple.negatives[:NEGATIVES]}
    best, beta = score_of(triple.positive), triple.negatives[0].beta or BETA

    def card(judged: Judged) -> Card:
        score = score_of(judged)
        verdict = (
            "chosen"
            if judged.item_id in chosen
            else "dropped"
            if score > best - beta
            else "passed over"
        )
        return Card(
            truth.corpus.content(truth.item(judged)), judged.rank, judged.similarity, score,
            "positive" if judged is triple.positive else verdict, truth.is_right(query, judged),
        )  # fmt: skip

    judged_ones = [judged for judged in row.candidates if judged.error is None][:cards]
    return Strip(
        row.subset,
        truth.corpus.content(query),
        [card(judged) for judged in (triple.positive, *judged_ones)],
    )


def rankings(out: Path, subset: str, *, cards: int = 8) -> list[tuple[str, Strip]]:
    """Returns the rankings by base, judge and reranker of the first query that the judge corrects."""
    corpus = Corpus(out / "eval" / "corpus")
    queries = {query.query_id: query for query in corpus.queries}
    runs = {
        name: list(read_rankings(out / "eval" / folder / "rankings.parquet"))
        for name, folder in {
            "base": "base-metrics",
            "judge": "rerank-judge",
            "reranker": "rerank-reranker",
        }.items()
    }
    for before, judge, reranker in zip(*runs.values(), strict=True):
        if before.subset == subset and before.gold_rank > 1 and judge.gold_rank == 1:
            named = {"base": before, "judge": judge, "reranker": reranker}
            return [
                (name, _ranked(corpus, queries[r.query_id], r, cards)) for name, r in named.items()
            ]
    return []


def _ranked(corpus: Corpus, query: Query, ranking: Ranking, cards: int) -> Strip:
    def made() -> Iterator[Card]:
        log_odds = ranking.log_odds or [None] * len(ranking.item_ids)
        for rank, (item_id, similarity, odds) in enumerate(
            zip(ranking.item_ids, ranking.similarities, log_odds, strict=False)
        ):
            content = corpus.content(corpus.items[corpus.row_of[item_id]])
            score = None if odds is None else sigmoid(odds)
            yield Card(content, rank, similarity, score, "", item_id in ranking.positive_ids)

    return Strip(ranking.subset, corpus.content(query), list(made())[:cards])
