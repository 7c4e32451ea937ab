"""Reranks an evaluation's best items by a judge's answers, and measures what that gains and what it loses.

The judge is a service: as it comes, or with a trained reranker's weights. Nothing of the embedder is run again.
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
from unijudge.formats.rankings import EVALUATION_FILES, Evaluation, Ranking, read_evaluation, write_rankings
from unijudge.judging.verdicts import JudgeIdentity
from unijudge.metrics import mean_reciprocal_rank, precision_at_1
from unijudge.provenance import Provenance
from unijudge.storage.files import file_sha256, publish_json, read_json
from unijudge.storage.leases import lease
from unijudge.storage.outputs import check_file, check_folder, is_json_of
from unijudge.storage.stores import exists

Ranks = npt.NDArray[np.int64]
HOW = {"out", "service", "key_file", "max_in_flight"}
"""Settings that do not change what comes of a reranking; who judges is known by his identity."""


class RerankReport(Evaluation):
    """metrics.json: what became of every subset.

    `gained`: share of queries whose first item is right now and was wrong; `lost`: the other way round; `in_top`: share
    with a positive among the judged items, beyond which no reranking can go; `unparsable`: share whose list got no
    answer that names one of its numbers, so that the embedder's order (`fused`: the pairs' own) stands.
    """

    rankings: str
    judge: JudgeIdentity
    method: str
    top: int
    """Items that were judged."""
    min_mass: float
    """Least probability of a list's numbers together."""
    unjudged: int
    """Pairs without a verdict; such an item goes behind all judged ones."""
    unparsable: int
    """Lists without a choice."""
    auto: dict[str, Decision] | None
    """Which subsets were reranked, and why; null where all are."""


def rerank(settings: RerankSettings, report: Callable[[int, int], None], *, overwrite: bool = False) -> RerankReport:
    """Writes metrics.json and rankings.parquet; what an interrupted job was answered is not asked again.

    Args:
        settings: The job.
        report: Is called with (queries done, queries in all).
        overwrite: Replace a reranking of something else, by another judge or by other settings.

    Raises:
        DataError: The rankings are of another corpus or too short, what was held out was reranked otherwise, or `out`
            holds another reranking, or another kind of measures, as the evaluation itself.
        FolderBusy: Another process reranks into `out`.
        JudgeError: The service cannot be used.
    """
    check_file(settings.out / "metrics.json", is_json_of(RerankReport), "report of `train rerank`")
    check_folder(settings.out, EVALUATION_FILES)
    corpus = Corpus(settings.corpus)
    rankings = _read(settings, corpus)
    with lease(settings.out):
        allowed = partial(_check_same, settings, corpus) if not overwrite else None
        try:
            outcomes, decisions, judge = asyncio.run(_rerank(settings, corpus, rankings, report, allowed))
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
    """Refuses to replace a reranking of something else, before anything is asked."""
    path = settings.out / "metrics.json"
    if exists(path):
        ours = Evaluation(corpus="", subsets={}, inputs=_inputs(settings, corpus, judge), made=Provenance.now(settings))
        read_json(path, RerankReport).check_same(path, ours, HOW)


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
            f"{settings.evaluation}: evaluates another corpus than {settings.corpus}: {evaluation.corpus}, as it was "
            "then; give that one"
        )
    cut = [len(one.item_ids) for one in rankings if len(one.item_ids) < min(settings.judged, one.candidates)]
    if cut:
        name = "top" if settings.method == "pointwise" else "list_size"
        raise DataError(
            f"{name} = {settings.judged}, but {settings.evaluation} holds only the best {min(cut)} items of each "
            f"query; evaluate again with keep = {settings.judged}, or set {name} = {min(cut)}"
        )
    return rankings


async def _rerank(
    settings: RerankSettings,
    corpus: Corpus,
    rankings: list[Ranking],
    report: Callable[[int, int], None],
    check: Callable[[JudgeIdentity], None] | None,
) -> tuple[list[Outcome], dict[str, Decision] | None, JudgeIdentity]:
    """What is to be reported, in order; and what `auto` decided, before the queries were asked that it spares."""
    key = read_key(settings.key_file)
    async with JudgeClient(settings.service, key=key, max_in_flight=settings.max_in_flight) as judge:
        if check is not None:
            check(judge.identity)
        ask = RankingJudge(settings, corpus, judge, len(rankings), report)
        if settings.rerank == "always":
            return await ask.about(rankings), None, judge.identity
        names = sorted({ranking.subset for ranking in rankings})
        if settings.held_out is not None:
            decisions = _decided_by(settings, names, judge.identity, rankings)
        else:
            trial = await ask.about([ranking for ranking in rankings if is_held_out(ranking.query_id)])
            decisions = {}
            for name in names:
                decisions[name] = _decided(settings, [one for one in trial if one.before.subset == name])
            rankings = [ranking for ranking in rankings if not is_held_out(ranking.query_id)]
            if not rankings:
                raise DataError(
                    f"{settings.evaluation}: every query is held out, none is left to report; give held_out"
                )
        ask.total -= sum(not decisions[ranking.subset].reranked for ranking in rankings)
        asked = iter(await ask.about([ranking for ranking in rankings if decisions[ranking.subset].reranked]))
        outcomes = [next(asked) if decisions[one.subset].reranked else Outcome(one, one) for one in rankings]
        return outcomes, decisions, judge.identity


def _decided(settings: RerankSettings, outcomes: Sequence[Outcome]) -> Decision:
    """By the held-out queries of one subset."""
    before_Q, after_Q = _gold_ranks(outcomes)
    gained, lost = int(_gained_Q(before_Q, after_Q).sum()), int(_gained_Q(after_Q, before_Q).sum())
    return decide(len(outcomes), gained, lost, min_queries=settings.min_held_out)


def _decided_by(
    settings: RerankSettings, names: Sequence[str], judge: JudgeIdentity, reported: Sequence[Ranking]
) -> dict[str, Decision]:
    """By an earlier reranking of other queries.

    Raises:
        DataError: It was by another judge or method, was itself decided, or of these very queries.
    """
    assert settings.held_out is not None  # noqa: S101  the caller's condition
    earlier, theirs = read_evaluation(settings.held_out, RerankReport)
    here = _rules(settings.method, settings.judged, settings.min_label_mass)
    there = _rules(earlier.method, earlier.top, earlier.min_mass)
    if (here, judge) != (there, earlier.judge) or earlier.auto:
        raise DataError(
            f"{settings.held_out}: reranks {there} by {earlier.judge}; here it is {here} by {judge}. Rerank the "
            "held-out queries so, with rerank = 'always'"
        )
    asked = {one.query_key for one in theirs}
    if same := [one.query_id for one in reported if one.query_key in asked]:
        raise DataError(
            f"{settings.held_out}: reranks {len(same)} of these very queries, as {min(same)}; give others, or leave "
            "held_out away"
        )

    def decision(name: str) -> Decision:
        found = earlier.subsets.get(name, {"queries": 0, "gained": 0, "lost": 0})
        gained, lost = (round(found["queries"] * found[share]) for share in ("gained", "lost"))
        return decide(int(found["queries"]), gained, lost, min_queries=settings.min_held_out)

    return {name: decision(name) for name in names}


def _rules(method: str, top: int, min_mass: float) -> str:
    """How a judge's answers make an order, in words."""
    return f"{top} items {method}" + ("" if method == "pointwise" else f" with min_label_mass = {min_mass:g}")


def _gold_ranks(outcomes: Sequence[Outcome]) -> tuple[Ranks, Ranks]:
    """Before and after."""
    before_Q = np.array([outcome.before.gold_rank for outcome in outcomes], int)
    return before_Q, np.array([outcome.after.gold_rank for outcome in outcomes], int)


def _gained_Q(before_Q: Ranks, after_Q: Ranks) -> npt.NDArray[np.bool_]:
    """Whether a query's first item is right after and was wrong before."""
    return (before_Q > 1) & (after_Q == 1)


def _measures(settings: RerankSettings, outcomes: Sequence[Outcome]) -> dict[str, dict[str, float]]:
    subsets: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        subsets[outcome.before.subset].append(outcome)

    def measures(found: list[Outcome]) -> dict[str, float]:
        before_Q, after_Q = _gold_ranks(found)
        in_top = [not {*one.before.positive_ids}.isdisjoint(one.before.item_ids[: settings.judged]) for one in found]
        made = {
            "queries": len(found),
            "in_top": float(np.mean(in_top)),
            "precision@1 before": precision_at_1(before_Q),
            "precision@1": precision_at_1(after_Q),
            "gained": float(_gained_Q(before_Q, after_Q).mean()),
            "lost": float(_gained_Q(after_Q, before_Q).mean()),
            "mrr before": mean_reciprocal_rank(before_Q),
            "mrr": mean_reciprocal_rank(after_Q),
        }
        listed = settings.method != "pointwise"
        return made | ({"unparsable": float(np.mean([one.unparsable for one in found]))} if listed else {})

    return {name: measures(found) for name, found in sorted(subsets.items())}
