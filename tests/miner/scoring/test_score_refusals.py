"""Scoring jobs that are refused or stopped: another plan, other vectors, another judge, a second process."""

import shutil

import pytest

from judge_service.backends.scripted import ScriptedJudge
from miner.scoring.job import score
from tests.miner.conftest import embed, quiet, serving
from tests.pictures import png
from unijudge.errors import DataError, FolderBusy, JudgeBroken, JudgeChanged
from unijudge.formats.parts import part_path
from unijudge.judging.prompt import Prompt
from unijudge.storage.leases import lease


def test_another_judge_in_the_middle_stops_the_job(job, service):
    score(job(service), quiet)
    part_path(job(service).out, 3).unlink()
    other = serving(ScriptedJudge(Prompt(instruction="Something else?")))
    with (
        other as url,
        pytest.raises(
            JudgeChanged, match=r"was started with judge scripted .* but the service runs scripted"
        ),
    ):
        score(job(url), quiet)
    assert not part_path(job(service).out, 3).exists()


def test_a_plan_never_changes(job, service):
    score(job(service), quiet)
    with pytest.raises(DataError, match=r"a different plan .k was 10, is 11"):
        score(job(service, k=11), quiet)


def test_a_begun_job_takes_no_vectors_of_another_model(tmp_path, corpus, job, service):
    """The vectors were made again with another model, in the same folder.

    The same holds for a folder that has candidates, but no plan yet.
    """
    score(job(service), quiet)
    part_path(job(service).out, 3).unlink()
    shutil.rmtree(tmp_path / "vectors")
    embed(corpus, tmp_path / "vectors", width=8)
    with pytest.raises(
        DataError,
        match=r"scores: was started with a different plan .vectors was \w{64}, is \w{64}.*\. Give another f",
    ):
        score(job(service), quiet)
    for path in [*job(service).out.glob("part-*"), job(service).out / "manifest.json"]:
        path.unlink()
    with pytest.raises(
        DataError,
        match=r"scores/candidates: holds other candidates .vectors differ.. Give another folder",
    ):
        score(job(service), quiet)


def test_shards_without_their_plan_are_refused(job, service):
    score(job(service), quiet)
    (job(service).out / "manifest.json").unlink()
    with pytest.raises(
        DataError, match=r"holds part-00000\.parquet.* already, which would be mixed"
    ):
        score(job(service, k=11), quiet)


def test_a_second_miner_is_refused(job, service):
    with lease(job(service).out), pytest.raises(FolderBusy):
        score(job(service), quiet)


def test_a_judge_that_does_not_answer_the_question_stops_the_job(job, monkeypatch):
    class Elsewhere(ScriptedJudge):
        async def judge(self, query, candidates):
            answers = await super().judge(query, candidates)
            return [
                a.model_copy(
                    update={"yes_logprob": a.yes_logprob - 5, "no_logprob": a.no_logprob - 5}
                )
                for a in answers
            ]

    with serving(Elsewhere(Prompt())) as url:
        with pytest.raises(
            JudgeBroken,
            match=r"mean probability of 0\.00674, less than min_label_mass = 0\.5.*Check the judge's chat template",
        ):
            score(job(url), quiet)
        assert not list(job(url).out.glob("part-*"))
        assert score(job(url, min_label_mass=0), quiet).shards_done == 8


def test_vectors_of_another_corpus_are_refused(tmp_path, corpus, job, service):
    from miner.importers.pairs import read_pairs
    from tests.miner.importers.imported import ROWS, take, write

    (corpus.images / "x.png").write_bytes(png())
    (tmp_path / "other").mkdir()
    other, _ = take(
        read_pairs(write(tmp_path / "other" / "p.jsonl", ROWS)), tmp_path / "other", corpus.images
    )
    embed(other, tmp_path / "other_vectors")
    with pytest.raises(DataError, match="embeds another corpus"):
        score(job(service, vectors=tmp_path / "other_vectors"), quiet)


def test_a_job_of_other_vectors_begins_nothing(tmp_path, corpus, job, service):
    (tmp_path / "v").mkdir()
    with pytest.raises(DataError, match=r"v/vectors\.json: no such file"):
        score(job(service, vectors=tmp_path / "v"), quiet)
    assert not (job(service).out / "manifest.json").exists()
