"""Reranks the best items of an evaluation with a judge's answers, and measures the gains and the losses.

The judge is a service with an unmodified judge or with a trained reranker. The embedder does not run again.
"""

import asyncio
import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from trainer.evaluation.settings import RerankSettings
from trainer.reranking.auto import Decision, decide, is_held_out
from trainer.reranking.judge_answers import Outcome, RankingJudge
from unijudge.client.client import JudgeClient
from unijudge.client.keys import read_key
from unijudge.errors import DataError, UnijudgeError, first_error
from unijudge.formats.corpus import Corpus
from unijudge.formats.rankings import (
    EVALUATION_FILES,
    Evaluation,
    Ranking,
    read_evaluation,
    write_rankings,
)
from unijudge.judging.verdicts import JudgeIdentity
from unijudge.metrics import mean_reciprocal_rank, precision_at_1
from unijudge.provenance import Provenance
from unijudge.storage.files import file_sha256, publish_json, read_json
from unijudge.storage.leases import lease
from unijudge.storage.outputs import check_file, check_folder, is_json_of
from unijudge.storage.stores import exists

Ranks = npt.NDArray[np.int64]
MAY_DIFFER = {"out", "service", "key_file", "max_in_flight"}
"""The settings that do not change the results of a reranking. The identity of the judge is compared separately."""


class RerankReport(Evaluation):
    """The content of metrics.json: the measures of every subset.

    `gained` is the share of queries whose first item became right, `lost` the share whose first item became wrong.
    `in_top` is the share of queries with a positive among the judged items, which is the upper limit of precision@1.
    `unparsable` is the share of queries for which the judge's answer to the list is not one of its numbers. These
    queries keep the embedder's order (with `fused`: the order by pairs).
    """

    rankings: str
    judge: JudgeIdentity
    method: str
    top: int
    """The number of judged items in each ranking."""
    min_mass: float
    """The smallest total probability of a list's numbers for a choice."""
    unjudged: int
    """The number of pairs without a verdict. Items of these pairs rank behind all judged items."""
    unparsable: int
    """The number of lists without a choice."""
    auto: dict[str, Decision] | None
    """The decision about each subset. Null if all subsets are reranked."""


def rerank(
    settings: RerankSettings, report: Callable[[int, int], None], *, overwrite: bool = False
) -> RerankReport:
    """Writes metrics.json and rankings.parquet. After an interruption, stored answers are not asked again.

    Args:
        settings: The settings of the job.
        report: A function that is called with (finished queries, all queries).
        overwrite: Whether to replace a reranking of other inputs, by another judge or with other settings.

    Raises:
        DataError: The rankings belong to another corpus or are too short, the held-out queries were reranked in another
            way, or the folder `out` holds another reranking or another kind of report, such as the evaluation.
        FolderBusy: Another process reranks into the folder `out`.
        JudgeError: The service cannot be used.
    """
    check_file(settings.out / "metrics.json", is_json_of(RerankReport), "report of `train rerank`")
    check_folder(settings.out, EVALUATION_FILES)
    corpus = Corpus(settings.corpus)
    rankings = _read(settings, corpus)
    with lease(settings.out):
        allowed = partial(_check_same, settings, corpus) if not overwrite else None
        try:
            outcomes, decisions, judge = asyncio.run(
                _rerank(settings, corpus, rankings, report, allowed)
            )
        except* UnijudgeError as group:
            raise first_error(group) from None
        return _publish(settings, corpus, outcomes, decisions, judge)


def _inputs(settings: RerankSettings, corpus: Corpus, judge: JudgeIdentity) -> dict[str, str]:
    return {
        "corpus": corpus.fingerprint,
        "evaluation": file_sha256(settings.evaluation / "rankings.parquet"),
        "judge": hashlib.sha256(judge.model_dump_json().encode()).hexdigest(),
    }


def _check_same(settings: RerankSettings, corpus: Corpus, judge: JudgeIdentity) -> None:
    """Raises an error if the folder holds a different reranking, before the first question is asked."""
    path = settings.out / "metrics.json"
    if exists(path):
        ours = Evaluation(
            corpus="",
            subsets={},
            inputs=_inputs(settings, corpus, judge),
            made=Provenance.now(settings),
        )
        read_json(path, RerankReport).check_same(path, ours, MAY_DIFFER)


def _publish(
    settings: RerankSettings,
    corpus: Corpus,
    outcomes: Sequence[Outcome],
    decisions: dict[str, Decision] | None,
    judge: JudgeIdentity,
) -> RerankReport:
    after = [outcome.after for outcome in outcomes]
    write_rankings(settings.out / "rankings.parquet", after)
    made = RerankReport(
        corpus=str(settings.corpus),
        rankings=str(settings.evaluation),
        judge=judge,
        method=settings.method,
        top=settings.judged,
        min_mass=settings.min_label_mass,
        subsets=_measures(settings, outcomes),
        inputs=_inputs(settings, corpus, judge),
        rankings_sha256=file_sha256(settings.out / "rankings.parquet"),
        made=Provenance.now(settings),
        unjudged=sum(log_odds is None for ranking in after for log_odds in ranking.log_odds or []),
        unparsable=sum(outcome.unparsable for outcome in outcomes),
        auto=decisions,
    )
    publish_json(settings.out / "metrics.json", made)
    return made


def _read(settings: RerankSettings, corpus: Corpus) -> list[Ranking]:
    evaluation, rankings = read_evaluation(settings.evaluation, Evaluation)
    if evaluation.inputs.get("corpus") != corpus.fingerprint:
        raise DataError(
            f"{settings.evaluation}: evaluates another corpus than {settings.corpus}. Give the evaluated corpus, "
            f"{evaluation.corpus} as it was at that time, or evaluate again"
        )
    cut = [
        len(ranking.item_ids)
        for ranking in rankings
        if len(ranking.item_ids) < min(settings.judged, ranking.candidates)
    ]
    if cut:
        name = "top" if settings.method == "pointwise" else "list_size"
        raise DataError(
            f"{name} = {settings.judged}, but {settings.evaluation} holds only the best {min(cut)} items of each "
            f"query. Evaluate again with keep = {settings.judged}, or set {name} = {min(cut)}"
        )
    return rankings


async def _rerank(
    settings: RerankSettings,
    corpus: Corpus,
    rankings: list[Ranking],
    report: Callable[[int, int], None],
    check: Callable[[JudgeIdentity], None] | None,
) -> tuple[list[Outcome], dict[str, Decision] | None, JudgeIdentity]:
    """Reranks the queries. Returns the outcomes to report, in order, the decisions of `auto`, and the judge's identity.

    `auto` decides first, so that the judge is not asked about subsets that are not reranked.
    """
    key = read_key(settings.key_file)
    async with JudgeClient(
        settings.service, key=key, max_in_flight=settings.max_in_flight
    ) as judge:
        if check is not None:
            check(judge.identity)
        ask = RankingJudge(settings, corpus, judge, len(rankings), report)
        if settings.rerank == "always":
            return await ask.about(rankings), None, judge.identity
        names = sorted({ranking.subset for ranking in rankings})
        if settings.held_out is not None:
            decisions = _decided_by(settings, names, judge.identity, rankings)
        else:
            trial = await ask.about(
                [ranking for ranking in rankings if is_held_out(ranking.query_id)]
            )
            decisions = {}
            for name in names:
                decisions[name] = _decided(
                    settings, [outcome for outcome in trial if outcome.before.subset == name]
                )
            rankings = [ranking for ranking in rankings if not is_held_out(ranking.query_id)]
            if not rankings:
                raise DataError(
                    f"{settings.evaluation}: every query is held out, so no query is left to report. Set held_out to a "
                    "reranking of other queries"
                )
        ask.total -= sum(not decisions[ranking.subset].reranked for ranking in rankings)
        asked = iter(
            await ask.about([ranking for ranking in rankings if decisions[ranking.subset].reranked])
        )
        outcomes = [
            next(asked) if decisions[ranking.subset].reranked else Outcome(ranking, ranking)
            for ranking in rankings
        ]
        return outcomes, decisions, judge.identity


def _decided(settings: RerankSettings, outcomes: Sequence[Outcome]) -> Decision:
    """Decides about one subset from its held-out queries."""
    before_Q, after_Q = _gold_ranks(outcomes)
    gained = int(_gained_Q(before_Q, after_Q).sum())
    lost = int(_gained_Q(after_Q, before_Q).sum())
    return decide(len(outcomes), gained, lost, min_queries=settings.min_held_out)


def _decided_by(
    settings: RerankSettings,
    names: Sequence[str],
    judge: JudgeIdentity,
    reported: Sequence[Ranking],
) -> dict[str, Decision]:
    """Decides about each subset from an earlier reranking of other queries.

    Raises:
        DataError: The earlier reranking used another judge or method, used `auto` itself, or contains reported queries.
    """
    assert settings.held_out is not None  # noqa: S101  the caller's condition
    earlier, theirs = read_evaluation(settings.held_out, RerankReport)
    here = _rules(settings.method, settings.judged, settings.min_label_mass)
    there = _rules(earlier.method, earlier.top, earlier.min_mass)
    if (here, judge) != (there, earlier.judge) or earlier.auto:
        raise DataError(
            f"{settings.held_out}: reranks {there} by {earlier.judge}, but this job reranks {here} by {judge}. Rerank "
            "the held-out queries with the judge and method of this job, and with rerank = 'always'"
        )
    asked = {ranking.query_key for ranking in theirs}
    if same := [ranking.query_id for ranking in reported if ranking.query_key in asked]:
        raise DataError(
            f"{settings.held_out}: holds {len(same)} of the queries to report, such as {min(same)}. Give a reranking "
            "of other queries, or leave held_out out"
        )

    def decision(name: str) -> Decision:
        measures = earlier.subsets.get(name, {"queries": 0, "gained": 0, "lost": 0})
        gained, lost = (
            round(measures["queries"] * measures[share]) for share in ("gained", "lost")
        )
        return decide(int(measures["queries"]), gained, lost, min_queries=settings.min_held_out)

    return {name: decision(name) for name in names}


def _rules(method: str, top: int, min_mass: float) -> str:
    """Returns the rules of a reranking as text."""
    return f"{top} items {method}" + (
        "" if method == "pointwise" else f" with min_label_mass = {min_mass:g}"
    )


def _gold_ranks(outcomes: Sequence[Outcome]) -> tuple[Ranks, Ranks]:
    """Returns the gold ranks before and after the reranking."""
    before_Q = np.array([outcome.before.gold_rank for outcome in outcomes], int)
    return before_Q, np.array([outcome.after.gold_rank for outcome in outcomes], int)


def _gained_Q(before_Q: Ranks, after_Q: Ranks) -> npt.NDArray[np.bool_]:
    """Returns for each query whether its first item is right after the reranking and was wrong before."""
    return (before_Q > 1) & (after_Q == 1)


def _measures(settings: RerankSettings, outcomes: Sequence[Outcome]) -> dict[str, dict[str, float]]:
    subsets: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        subsets[outcome.before.subset].append(outcome)

    def measures(outcomes: list[Outcome]) -> dict[str, float]:
        before_Q, after_Q = _gold_ranks(outcomes)
        before = [outcome.before for outcome in outcomes]
        in_top = [
            not {*one.positive_ids}.isdisjoint(one.item_ids[: settings.judged]) for one in before
        ]
        made = {
            "queries": len(outcomes),
            "in_top": float(np.mean(in_top)),
            "precision@1 before": precision_at_1(before_Q),
            "precision@1": precision_at_1(after_Q),
            "gained": float(_gained_Q(before_Q, after_Q).mean()),
            "lost": float(_gained_Q(after_Q, before_Q).mean()),
            "mrr before": mean_reciprocal_rank(before_Q),
            "mrr": mean_reciprocal_rank(after_Q),
        }
        listed = settings.method != "pointwise"
        unparsable = [outcome.unparsable for outcome in outcomes]
        return made | ({"unparsable": float(np.mean(unparsable))} if listed else {})

    return {name: measures(subset) for name, subset in sorted(subsets.items())}
