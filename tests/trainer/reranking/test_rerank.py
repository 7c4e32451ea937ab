"""`train rerank` over HTTP: the judge's order, its gains and losses, lists without a choice, and unchanged subsets."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from judge_service.backends.scripted import ScriptedJudge
from tests.trainer.exported import quiet
from tests.trainer.reranked import Answering, run, write_evaluation
from trainer.evaluation.evaluate import evaluate
from trainer.evaluation.settings import EvaluateSettings
from trainer.reranking.auto import is_held_out
from trainer.reranking.fusion import fused
from trainer.reranking.rerank import rerank
from unijudge.errors import DataError
from unijudge.formats.corpus import Corpus, write_corpus
from unijudge.formats.inventory import check
from unijudge.formats.rankings import Ranking, read_rankings, write_rankings
from unijudge.judging.prompt import Prompt
from unijudge.judging.verdicts import ListVerdict, PairError


def answers_about(judge, corpus, old, size=5):
    """Returns the judge's answers about the first items of a ranking, one by one."""
    query = next(query for query in corpus.queries if query.query_id == old.query_id)
    contents = [
        corpus.content(corpus.items[corpus.row_of[item_id]]) for item_id in old.item_ids[:size]
    ]
    return [answer.log_odds for answer in asyncio.run(judge.judge(corpus.content(query), contents))]


def test_pointwise_is_the_order_of_the_services_answers(corpus, job):
    judge = ScriptedJudge(Prompt())
    settings = job()
    report, before, after = run(judge, settings)
    assert (report.judge, report.method, report.top, report.auto) == (
        judge.identity,
        "pointwise",
        5,
        None,
    )
    for old, new, query in zip(before, after, corpus.queries, strict=True):
        first, rest = old.item_ids[:5], old.item_ids[5:]
        found = dict(zip(first, answers_about(judge, corpus, old), strict=True))
        assert new.item_ids == [*sorted(first, key=found.__getitem__, reverse=True), *rest]
        assert new.log_odds == pytest.approx(sorted(found.values(), reverse=True))
        (gold,) = query.positive_ids
        assert new.gold_rank == (new.item_ids.index(gold) + 1 if gold in first else old.gold_rank)
    firsts = [
        (old.gold_rank == 1, new.gold_rank == 1) for old, new in zip(before, after, strict=True)
    ]
    measures = report.subsets["squares"]
    assert "unparsable" not in measures
    assert measures["gained"] == firsts.count((False, True)) / len(firsts)
    assert measures["lost"] == firsts.count((True, False)) / len(firsts)
    assert measures["gained"] + measures["lost"] > 0, "the scripted judge is no oracle"
    golds = [
        query.positive_ids[0] in old.item_ids[:5]
        for old, query in zip(before, corpus.queries, strict=True)
    ]
    assert measures["in_top"] == np.mean(golds)
    assert check(settings.out).endswith(f"evaluation, whole: {len(after)} rows read")


def test_an_evaluation_and_its_reranking_never_replace_each_other(corpus, job, evaluation, folder):
    """Otherwise the embedder's results, the input of every reranking, would be lost."""
    before = (evaluation / "metrics.json").read_bytes()
    with pytest.raises(
        DataError,
        match=r"metrics\.json: exists already, but is not this command's output .report of `train rerank`.",
    ):
        rerank(job(out=evaluation), quiet)
    settings = job()
    for _ in range(2):
        run(ScriptedJudge(Prompt()), settings)
    with pytest.raises(
        DataError,
        match=r"metrics\.json: exists already, but is not this command's output .report of `train evaluate`.",
    ):
        evaluate(
            EvaluateSettings(corpus=corpus.folder, vectors=folder / "vectors", out=settings.out)
        )
    assert (evaluation / "metrics.json").read_bytes() == before


def test_listwise_puts_the_choice_first(corpus, job):
    """Four items are listed in the embedder's order, and the third item is chosen."""
    judge = Answering(2)
    report, before, after = run(judge, job(method="listwise", list_size=4))
    assert (report.method, report.top, report.unparsable, report.unjudged) == ("listwise", 4, 0, 0)
    listed = {tuple(content.text for content in one) for one in judge.listed}
    for old, new in zip(before, after, strict=True):
        assert (
            tuple(corpus.items[corpus.row_of[item_id]].text for item_id in old.item_ids[:4])
            in listed
        )
        assert new.item_ids == [
            old.item_ids[place] for place in (2, 0, 1, *range(3, len(old.item_ids)))
        ]
        assert new.list_logprobs == pytest.approx([-0.1, -3, -3, -3])
        assert new.log_odds is None


@pytest.mark.parametrize(
    "answer",
    [
        ListVerdict.of([-0.1, -9.0, -9.0, -9.0, -9.0], argmax_is_number=False),
        ListVerdict.of([-5.0, -4.0, -5.0, -5.0, -5.0], argmax_is_number=True),
        PairError(code="too_long", message="list fewer"),
    ],
    ids=["no number", "little mass", "an error"],
)
def test_a_list_without_a_choice_leaves_the_embedders_order(answer, job, caplog):
    report, before, after = run(Answering(answer), job(method="listwise"))
    assert report.unparsable == len(before)
    measures = report.subsets["squares"]
    assert (measures["unparsable"], measures["gained"], measures["lost"]) == (1, 0, 0)
    assert [new.item_ids for new in after] == [old.item_ids for old in before]
    assert [new.gold_rank for new in after] == [old.gold_rank for old in before]
    assert "8 of 8 lists got no choice, so these lists keep the embedder's order" in caplog.text


def test_fused_uses_both_and_only_the_pairs_if_a_list_has_no_choice(corpus, job, caplog):
    judge = Answering(3)
    _, before, after = run(judge, job(method="fused"))
    for old, new in zip(before, after, strict=True):
        scores = fused(answers_about(judge, corpus, old), [-3.0, -3.0, -3.0, -0.1, -3.0])
        best = sorted(range(5), key=lambda place: -scores[place])
        assert new.item_ids[:5] == [old.item_ids[place] for place in best]
        assert new.list_logprobs[best.index(3)] == pytest.approx(-0.1)
    assert "got no choice" not in caplog.text
    report, _, after = run(
        Answering(PairError(code="too_long", message="")), job(method="fused"), overwrite=True
    )
    assert report.unparsable == len(before)
    assert "8 of 8 lists got no choice, so these lists keep the pairs' order" in caplog.text
    pointwise = run(judge, job(), overwrite=True)[2]
    assert [new.item_ids for new in after] == [new.item_ids for new in pointwise]


def again(corpus, folder, asked=None):
    """The same items and queries again, with another question in each query."""
    queries = [replace(query, text=asked or query.text) for query in corpus.queries]
    if asked is None:
        queries = [replace(query, query_id=f"again {query.query_id}") for query in queries]
    write_corpus(folder, list(corpus.items), queries, images=corpus.images, rejects=0, source="t")
    return Corpus(folder)


@pytest.fixture
def world(corpus, tmp_path):
    """Rankings of the eight colours. The right colour is first in half of them, and second in the others."""
    rankings = []
    for number, query in enumerate(corpus.queries):
        (gold,) = query.positive_ids
        others = [item.item_id for item in corpus.items if item.item_id != gold]
        order = [gold, *others] if number % 2 else [others[0], gold, *others[1:]]
        scores = [0.9 - n / 10 for n in range(8)]
        rankings.append(
            Ranking(
                query.query_id, query.subset, 2 - number % 2, order, scores, [gold], 8, query.key
            )
        )
    return write_evaluation(tmp_path / "world", corpus, rankings)


def test_auto_does_not_rerank_subsets_that_it_harms(corpus, job, world, tmp_path):
    """Moving the second item to the front helps where it is right, and harms where the first item was right.

    The hash of a query decides its half.
    """
    halves = {query.query_id: is_held_out(query.query_id) for query in corpus.queries}
    assert 0 < sum(halves.values()) < len(halves)
    for place, min_held_out in [(1, 1), (7, 1), (1, 50)]:
        judge = Answering(place)
        rules = {
            "method": "listwise",
            "list_size": 8,
            "rerank": "auto",
            "min_held_out": min_held_out,
        }
        settings = job(**rules, evaluation=world, out=tmp_path / f"{place} {min_held_out}")
        report, before, after = run(judge, settings)
        trial = [old for old in before if halves[old.query_id]]
        gained = sum(old.gold_rank == place + 1 == 2 for old in trial)
        lost = sum(old.gold_rank == 1 for old in trial)
        decision = report.auto["squares"]
        assert (decision.queries, decision.gained, decision.lost) == (len(trial), gained, lost)
        assert decision.reranked == (
            gained - lost > (0 if min_held_out == 1 else (gained + lost) ** 0.5)
        )
        reported = [old for old in before if not halves[old.query_id]]
        assert [new.query_id for new in after] == [old.query_id for old in reported]
        assert report.subsets["squares"]["queries"] == len(reported)
        if not decision.reranked:
            assert after == reported
            assert len(judge.listed) == len(trial), "what is left alone is not asked about"


def test_auto_by_another_reranking(corpus, job, world, tmp_path):
    """In both held-out queries, the judge chooses the right second item.

    So all other queries are reranked, and all queries are reported.
    """
    judge = Answering(1)
    old = list(read_rankings(world / "rankings.parquet"))
    held_out = [ranking for ranking in old if ranking.gold_rank == 2][:2]
    rest = [ranking for ranking in old if ranking not in held_out]
    for name, rankings in {"held out": held_out, "rest": rest}.items():
        write_evaluation(tmp_path / name, corpus, rankings)
    earlier = job(method="listwise", evaluation=tmp_path / "held out", out=tmp_path / "earlier")
    run(judge, earlier)
    settings = job(
        method="listwise", evaluation=tmp_path / "rest", rerank="auto", held_out=earlier.out
    )
    report, before, after = run(judge, settings)
    decision = report.auto["squares"]
    assert (decision.queries, decision.gained, decision.lost, decision.reranked) == (2, 2, 0, True)
    assert str(decision) == "reranked: +1.000 ± 0.707 on 2 held-out queries, 2 gained, 0 lost"
    assert len(after) == len(before) == 6
    assert (report.subsets["squares"]["gained"], report.subsets["squares"]["lost"]) == (
        2 / 6,
        4 / 6,
    )
    with pytest.raises(
        DataError, match=r"reranks 5 items listwise .* but this job reranks 5 items pointwise"
    ):
        run(
            judge,
            job(evaluation=tmp_path / "rest", rerank="auto", held_out=earlier.out),
            overwrite=True,
        )
    with pytest.raises(DataError, match="holds 2 of the queries to report, such as squares"):
        run(judge, settings.model_copy(update={"evaluation": world}), overwrite=True)
    with pytest.raises(
        DataError,
        match=r"5 items listwise with min_label_mass = 0.5 .* listwise with min_label_mass = 0.9",
    ):
        run(judge, settings.model_copy(update={"min_label_mass": 0.9}), overwrite=True)
    other = again(corpus, tmp_path / "again")
    assert other.fingerprint != corpus.fingerprint
    theirs = write_evaluation(
        tmp_path / "theirs", other, [replace(one, query_id=f"again {one.query_id}") for one in old]
    )
    with pytest.raises(DataError, match="holds 2 of the queries to report, such as again squares"):
        run(
            judge,
            settings.model_copy(update={"corpus": other.folder, "evaluation": theirs}),
            overwrite=True,
        )
    with pytest.raises(ValidationError, match="Set rerank = 'auto'"):
        job(held_out=earlier.out)


def test_rankings_of_another_corpus_are_refused(corpus, job, tmp_path):
    """The ids are the same too. Otherwise the judge would answer other questions than the evaluated questions."""
    other = again(corpus, tmp_path / "again", "What colour is it?")
    assert (other.query_ids, other.item_ids) == (corpus.query_ids, corpus.item_ids)
    with pytest.raises(
        DataError,
        match=r"evaluates another corpus than .*again\. Give the evaluated corpus, .*corpus",
    ):
        rerank(job(corpus=other.folder), quiet)
    assert not (tmp_path / "r").exists(), "nothing was written"


def test_rankings_that_were_not_measured_are_refused(job, world, tmp_path):
    """A killed job left these rankings beside the measures of an earlier job."""
    rankings = list(read_rankings(world / "rankings.parquet"))
    write_rankings(world / "rankings.parquet", rankings[1:])
    with pytest.raises(
        DataError, match=r"rankings\.parquet: changed since it was written. Evaluate again"
    ):
        rerank(job(evaluation=world), quiet)
    (world / "metrics.json").unlink()
    with pytest.raises(DataError, match=r"metrics\.json: no such file"):
        rerank(job(evaluation=world), quiet)


def test_more_items_than_stored_are_refused_with_both_cures(
    corpus, evaluation, folder, job, tmp_path
):
    evaluate(
        EvaluateSettings(
            corpus=corpus.folder, vectors=folder / "vectors", out=tmp_path / "three", keep=3
        )
    )
    for changes, name in [
        ({"top": 5}, "top"),
        ({"method": "listwise", "list_size": 5}, "list_size"),
    ]:
        with pytest.raises(
            DataError, match=rf"{name} = 5, but .* the best 3 items .* keep = 5, or set {name} = 3"
        ):
            rerank(job(evaluation=tmp_path / "three", **changes), quiet)
        assert not (tmp_path / "r").exists(), "nothing was written"
    run(ScriptedJudge(Prompt()), job(evaluation=tmp_path / "three", top=3))
    run(
        ScriptedJudge(Prompt()), job(top=50, out=tmp_path / "all")
    )  # the corpus has only eight items


def test_a_reranking_of_something_else_is_replaced_only_with_overwrite(job, world, tmp_path):
    run(Answering(1), job(method="listwise"))
    before = (tmp_path / "r" / "metrics.json").read_bytes()
    for judge, settings, what in [
        (Answering(2), job(method="listwise"), "judge"),
        (Answering(1), job(method="fused"), "method"),
        (Answering(1), job(method="listwise", evaluation=world), "evaluation"),
    ]:
        with pytest.raises(
            DataError, match=rf"exists already, and differs in {what}. Give another .* --overwrite"
        ):
            run(judge, settings)
        assert not judge.listed, "nothing was asked"
        assert (tmp_path / "r" / "metrics.json").read_bytes() == before
    run(Answering(1), job(method="listwise", max_in_flight=3))  # the same command again
    run(Answering(2), job(method="listwise"), overwrite=True)
    assert (tmp_path / "r" / "metrics.json").read_bytes() != before
