"""Ranks candidates by cosine similarity and measures each subset's rankings. Reads stored vectors and runs no model."""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.evaluation.power import Power
from trainer.evaluation.settings import EvaluateSettings
from unijudge.alike import Exclusions
from unijudge.errors import DataError
from unijudge.formats.corpus import Corpus, Query
from unijudge.formats.lazy_table import Rows
from unijudge.formats.rankings import EVALUATION_FILES, Evaluation, Ranking, write_rankings
from unijudge.formats.vectors import VectorFolder, Vectors
from unijudge.metrics import (
    bootstrap_shares,
    gold_ranks,
    interval,
    mean_reciprocal_rank,
    modality_gap,
    ndcg,
    precision_at_1,
    recall_at,
)
from unijudge.provenance import Provenance
from unijudge.storage.files import file_sha256, publish_json, read_json
from unijudge.storage.leases import lease
from unijudge.storage.outputs import check_file, check_folder, is_json_of
from unijudge.storage.stores import exists

logger = logging.getLogger(__name__)


class EvaluationReport(Evaluation):
    """The content of metrics.json: every measure of every subset.

    `candidates` is the mean number of candidates of a query. `low` and `high` are the 95 % bootstrap interval of
    precision@1. `not measured` is the number of queries without a vector or without a positive that has a vector; a
    subset without such queries has no entry.

    `left out` and `united` describe the rules for open pools, see `EvaluateSettings.to_the_letter`. `left out` is the
    mean number of items of a pool that are no candidates. `united` is the share of queries for which positives of other
    rows are right as well.

    `modality gap` is missing if all contents of a subset's queries and candidates have an image, or if no content has
    an image.
    """

    vectors: str
    pool: str


def evaluate(settings: EvaluateSettings, *, overwrite: bool = False) -> EvaluationReport:
    """Writes metrics.json and rankings.parquet. A rerun with the same settings and inputs replaces both files.

    Args:
        settings: The settings of the evaluation.
        overwrite: Whether to replace an evaluation of other inputs or with other settings.

    Raises:
        DataError: The vectors do not belong to the corpus, a query's positives are not among its candidates, or the
            folder `out` holds another evaluation or another kind of report.
        FolderBusy: Another process evaluates into the folder `out`.
    """
    path = settings.out / "metrics.json"
    check_file(path, is_json_of(EvaluationReport), "report of `train evaluate`")
    check_folder(settings.out, EVALUATION_FILES)
    corpus = Corpus(settings.corpus)
    if not corpus.queries:
        raise DataError(
            f"{settings.corpus}: has no queries, so there is nothing to evaluate. Import a corpus with queries"
        )
    report = EvaluationReport(
        corpus=str(settings.corpus),
        vectors=str(settings.vectors),
        pool=settings.pool,
        subsets={},
        inputs={
            "corpus": corpus.fingerprint,
            "vectors": file_sha256(settings.vectors / "vectors.json"),
        },
        made=Provenance.now(settings),
    )
    with lease(settings.out):
        if exists(path) and not overwrite:
            read_json(path, EvaluationReport).check_same(path, report, {"out", "detect"})
        subsets = _write_rankings(settings, corpus)
        digest = file_sha256(settings.out / "rankings.parquet")
        report = report.model_copy(update={"subsets": subsets, "rankings_sha256": digest})
        publish_json(path, report)
    power = Power.of(subsets)
    if power and (doubt := power.lacking(settings.detect)):
        logger.warning("%s: %s", settings.corpus, doubt)
    return report


def _write_rankings(settings: EvaluateSettings, corpus: Corpus) -> dict[str, dict[str, float]]:
    """Writes the rankings, and returns the measures of each subset."""
    folder = VectorFolder(settings.vectors, corpus)
    items_ND, queries_QD = folder.whole("items"), folder.whole("queries")
    unseen = _told_unseen(settings, corpus, folder)
    measured: dict[str, list[dict[str, float]]] = defaultdict(list)
    seen: dict[str, npt.NDArray[np.bool_]] = defaultdict(lambda: np.zeros(len(corpus.items), bool))

    def rankings() -> Iterator[Ranking]:
        for case in _cases(settings, corpus, items_ND, queries_QD, unseen):
            query, ranks = case.query, gold_ranks(case.scores, case.gold)
            seen[query.subset][case.candidates] = True
            measured[query.subset].append(
                {
                    "rank": ranks[0],
                    "candidates": len(case.candidates),
                    "ndcg": ndcg(case.scores, case.gold, settings.cutoffs[-1]),
                    "left out": case.left_out,
                    "united": float(len(case.gold) > len(set(query.positive_ids))),
                }
            )
            best = np.argsort(-case.scores, kind="stable")[: settings.keep]
            listed_gold = case.gold[case.own | np.isin(case.gold, best)]
            item_ids, right = (
                corpus.item_ids.take(case.candidates[at]).to_pylist() for at in (best, listed_gold)
            )
            yield Ranking(
                query.query_id,
                query.subset,
                int(ranks[0]),
                item_ids,
                case.scores[best].tolist(),
                right,
                len(case.candidates),
                query.key,
            )

    write_rankings(settings.out / "rankings.parquet", rankings())
    gaps = {name: _gap(corpus, name, rows_N, items_ND, queries_QD) for name, rows_N in seen.items()}
    measures = {
        name: _measures(name, measured[name], settings.cutoffs) | gaps[name]
        for name in sorted(measured)
    }
    for name, count in Counter(
        corpus.queries.table["subset"].filter(unseen.queries_Q).to_pylist()
    ).items():
        measures.setdefault(name, {"queries": 0})["not measured"] = count
    return measures


@dataclass(frozen=True)
class _Case:
    """A query with its candidates and their scores."""

    query: Query
    candidates: Rows
    scores: Vectors
    """The similarity of the query with each candidate."""
    gold: Rows
    """The indices of the right candidates."""
    own: npt.NDArray[np.bool_]
    """For each right candidate, whether it is a positive of the query's own row."""
    left_out: int
    """The number of items in the pool that are no candidates."""


@dataclass(frozen=True)
class _Unseen:
    """The items and queries without a vector, whose texts were too long."""

    items_N: npt.NDArray[np.bool_]
    queries_Q: npt.NDArray[np.bool_]
    """True also for queries without a positive that has a vector."""


def _told_unseen(settings: EvaluateSettings, corpus: Corpus, folder: VectorFolder) -> _Unseen:
    """Returns the items and queries without a vector, and warns about them. Raises an error if no query is left."""
    items_N = _marked(folder.skipped("items"), len(corpus.items))
    alone_Q = _marked(folder.skipped("queries"), len(corpus.queries))
    blind_Q = alone_Q | np.array(
        [items_N[corpus.positives(row)].all() for row in range(len(alone_Q))]
    )
    if blind_Q.all():
        raise DataError(
            f"{settings.vectors}: no query has a vector and a positive with a vector, so there is nothing to evaluate. "
            "Embed with a larger model.max_tokens, or with model.on_long = 'truncate'"
        )
    if items_N.any() or blind_Q.any():
        logger.warning(
            "%s: %d items and %d queries were too long for the embedder and have no vector. These items are no "
            "candidates. %d queries of %d are not measured, since the query or all of its positives have no vector",
            settings.vectors, items_N.sum(), alone_Q.sum(), blind_Q.sum(), len(blind_Q),
        )  # fmt: skip
    return _Unseen(items_N, blind_Q)


def _cases(
    settings: EvaluateSettings,
    corpus: Corpus,
    items_ND: Vectors,
    queries_QD: Vectors,
    unseen: _Unseen,
) -> Iterator[_Case]:
    pools: dict[str | None, tuple[Rows, Vectors]] = {}
    exclusions, items = Exclusions(corpus), len(corpus.items)
    for row, (query, vector_D) in enumerate(zip(corpus.queries, queries_QD, strict=True)):
        if unseen.queries_Q[row]:
            continue
        right, excluded = corpus.positives(row), np.empty(0, np.int64)
        if query.candidates is not None:
            candidates = np.array(query.candidates, np.int64)
            vectors_ND = items_ND[candidates]
        else:
            name = query.subset if settings.pool == "subset" else None
            if name not in pools:
                rows = corpus.pool_rows(name)
                pools[name] = rows, items_ND if name is None else items_ND[rows]
            candidates, vectors_ND = pools[name]
            if not settings.to_the_letter:
                right = exclusions.positives(row)
                excluded = exclusions.rows(row)
        # The product uses the whole pool, so that the pool is never copied. Items that are left out are removed later.
        seen_N = ~unseen.items_N[candidates]
        golden_N = _marked(right, items)[candidates] & seen_N
        kept = np.flatnonzero(golden_N | (seen_N & ~_marked(excluded, items)[candidates]))
        gold = np.flatnonzero(golden_N[kept])
        if not len(gold):
            raise DataError(
                f"{settings.corpus}: query {query.query_id!r}: no positive is among its candidates. Import a corpus "
                "whose closed lists hold a positive"
            )
        own = _marked(corpus.positives(row), items)[candidates[kept][gold]]
        yield _Case(
            query,
            candidates[kept],
            (vectors_ND @ vector_D)[kept],
            gold,
            own,
            len(candidates) - len(kept),
        )


def _marked(rows: Rows, items: int) -> npt.NDArray[np.bool_]:
    """Returns for each item whether the item is among the rows. A look-up is faster than a search for every query."""
    marks_N = np.zeros(items, bool)
    marks_N[rows] = True
    return marks_N


def _gap(
    corpus: Corpus,
    subset: str,
    seen_N: npt.NDArray[np.bool_],
    items_ND: Vectors,
    queries_QD: Vectors,
) -> dict[str, float]:
    """Returns the modality gap of a subset: the gap between contents with an image and contents without an image."""
    asked_Q = (np.array(corpus.queries.table["subset"].to_pylist()) == subset) & queries_QD.any(1)
    contents_ND = np.concatenate([items_ND[seen_N], queries_QD[asked_Q]])
    shown_N = np.concatenate(
        [_has_image(corpus.items.table)[seen_N], _has_image(corpus.queries.table)[asked_Q]]
    )
    gap = modality_gap(contents_ND[shown_N], contents_ND[~shown_N])
    return {} if np.isnan(gap) else {"modality gap": gap}


def _has_image(table: Any) -> npt.NDArray[np.bool_]:
    return np.array(table["image"].is_valid().to_pylist(), bool)


def _measures(
    name: str, queries: list[dict[str, float]], cutoffs: tuple[int, ...]
) -> dict[str, float]:
    ranks_Q = np.array([query["rank"] for query in queries], np.int64)
    first = precision_at_1(ranks_Q)
    low, high = interval(bootstrap_shares(first, len(queries), name))

    def mean(key: str) -> float:
        return float(np.mean([query[key] for query in queries]))

    return {
        "queries": len(queries),
        "candidates": mean("candidates"),
        "precision@1": first,
        "low": low,
        "high": high,
        **{f"recall@{k}": recall_at(ranks_Q, k) for k in cutoffs},
        "mrr": mean_reciprocal_rank(ranks_Q),
        f"ndcg@{cutoffs[-1]}": mean("ndcg"),
        "left out": mean("left out"),
        "united": mean("united"),
    }
