"""The stored answers of `train rerank`: interrupted jobs, refused queries, and damaged files."""

import pytest

from judge_service.backends.scripted import ScriptedJudge
from tests.miner.conftest import serving
from tests.trainer.exported import quiet
from tests.trainer.reranked import Answering, run
from trainer.reranking import judge_answers
from trainer.reranking.rerank import rerank
from unijudge.client.client import JudgeClient
from unijudge.errors import DataError, FolderBusy, JudgeRefused, UnijudgeError
from unijudge.judging.prompt import Prompt
from unijudge.judging.verdicts import PairError
from unijudge.storage.leases import lease


def test_an_interrupted_job_asks_only_for_the_rest(job, tmp_path, monkeypatch):
    """The job is stopped in its third part of two queries.

    Then the same command runs, and a command with other rules on the same answers.
    """
    monkeypatch.setattr(judge_answers, "RANKINGS_AT_ONCE", 2)
    whole = run(judge := Answering(1), job(method="fused", list_size=2, out=tmp_path / "whole"))
    queries = len(judge.listed)

    def stop(done, _):
        if done == 5:
            raise UnijudgeError("stopped")

    settings = job(method="fused", list_size=2, max_in_flight=1)
    with serving(Answering(1)) as url, pytest.raises(UnijudgeError, match="stopped"):
        rerank(settings.model_copy(update={"service": url}), stop)
    assert not (settings.out / "metrics.json").exists()
    resumed = run(judge := Answering(1), settings)
    assert len(judge.listed) == queries - 4
    assert resumed[1:] == whole[1:]
    assert resumed[0].subsets == whole[0].subsets
    stricter, _, _ = run(
        judge := Answering(1), settings.model_copy(update={"min_label_mass": 1.0}), overwrite=True
    )
    assert (judge.listed, stricter.unparsable) == ([], queries)


def test_two_jobs_never_write_one_folder(job):
    settings = job()
    with lease(settings.out), pytest.raises(FolderBusy):
        rerank(settings, quiet)


def test_a_torn_file_of_answers_is_named(job):
    settings = job()
    run(ScriptedJudge(Prompt()), settings)
    (one,) = (settings.out / "answers").iterdir()
    one.write_bytes(one.read_bytes()[:100])
    with pytest.raises(DataError, match=rf"{one.name}: no stored answers of this version"):
        run(ScriptedJudge(Prompt()), settings)


def test_a_judge_that_refuses_everything_is_one_error(job, monkeypatch):
    async def refuse(*_):
        raise JudgeRefused("the query itself cannot be judged")

    monkeypatch.setattr("trainer.reranking.judge_answers.JudgeClient.judge", refuse)
    settings = job()
    with pytest.raises(
        JudgeRefused, match=r"rejects every query so far\. .*: the query itself cannot be judged"
    ):
        run(ScriptedJudge(Prompt()), settings)
    assert not settings.out.exists()


@pytest.mark.parametrize("method", ["pointwise", "listwise", "fused"])
def test_a_query_that_is_refused_keeps_its_order_and_is_named(
    corpus, job, monkeypatch, caplog, method
):
    bad = corpus.queries[1]

    def refusing(real):
        async def ask(self, query, candidates):
            if query == corpus.content(bad):
                raise JudgeRefused("its image cannot be decoded")
            return await real(self, query, candidates)

        return ask

    for real in (JudgeClient.judge, JudgeClient.choose):
        monkeypatch.setattr(JudgeClient, real.__name__, refusing(real))
    report, before, after = run(Answering(1), job(method=method, list_size=2))
    place = [ranking.query_id for ranking in before].index(bad.query_id)
    assert after[place].item_ids == before[place].item_ids
    assert report.unjudged == (0 if method == "listwise" else report.top)
    assert "1 queries keep their order, since the judge rejects them" in caplog.text
    assert f"The first is {bad.query_id}: its image cannot" in caplog.text


@pytest.mark.parametrize("method", ["pointwise", "listwise", "fused"])
@pytest.mark.parametrize(
    "passing", [PairError(code="out_of_memory", message="full"), JudgeRefused("failed 3 times")]
)
def test_only_failed_queries_are_requested_again(corpus, job, monkeypatch, method, passing):
    """While a GPU is full, a query or its first candidate fails. The second job finds free memory."""
    bad, full, asked = corpus.content(corpus.queries[1]), [True], []

    def failing(real):
        async def ask(self, query, candidates):
            asked.append(query)
            if not full or query != bad:
                return await real(self, query, candidates)
            if isinstance(passing, JudgeRefused):
                raise passing
            return (
                passing if real is choose else [passing, *(await real(self, query, candidates))[1:]]
            )

        return ask

    judge, choose = JudgeClient.judge, JudgeClient.choose
    for real in (judge, choose):
        monkeypatch.setattr(JudgeClient, real.__name__, failing(real))
    settings = job(method=method, list_size=2)
    run(Answering(1), settings)
    full.clear()
    asked.clear()
    again = run(Answering(1), settings)
    assert set(map(repr, asked)) == {repr(bad)}
    asked.clear()
    whole = run(Answering(1), settings)
    assert not asked, "nothing failed any more"
    fresh = run(Answering(1), settings.model_copy(update={"out": settings.out.with_name("fresh")}))
    assert again[2] == whole[2] == fresh[2]
