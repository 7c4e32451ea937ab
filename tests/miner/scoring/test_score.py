"""The scoring job over real HTTP: every pair is scored exactly once, whatever stops the job."""

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest
from fastapi import HTTPException
from typer.testing import CliRunner

from judge_service.backends.scripted import ScriptedJudge
from judge_service.front.questions import Questions
from miner.cli import app
from miner.retrieval import candidates
from miner.scoring.job import score
from tests.miner.conftest import embed, quiet, serving
from tests.pictures import png
from unijudge.errors import DataError, FolderBusy, JudgeChanged, JudgeUnavailable
from unijudge.formats.scores import read_scores
from unijudge.judging.prompt import Prompt
from unijudge.settings import overrides_of


def test_every_query_is_judged_with_its_candidates(corpus, job, service):
    seen = []
    done = score(job(service), seen.append)
    rows = list(read_scores(job(service).out))
    assert [row.query_id for row in rows] == [query.query_id for query in corpus.queries]
    for row, query in zip(rows, corpus.queries, strict=True):
        assert row.query_key == query.key
        assert [judged.item_id for judged in row.positives] == list(query.positive_ids)
        ceiling = max(judged.similarity for judged in row.positives)
        similarities = [judged.similarity for judged in row.candidates]
        assert similarities == sorted(similarities, reverse=True)
        assert all(value < ceiling for value in similarities)
        assert [judged.rank for judged in row.candidates] == list(range(len(row.candidates)))
        assert all(
            judged.log_odds is not None and not judged.error
            for judged in [*row.positives, *row.candidates]
        )
    assert done.shards_done == done.shards == 8
    assert done.counts.pairs == sum(len(row.positives) + len(row.candidates) for row in rows)
    assert [progress.shards_done for progress in seen] == list(range(9))


def test_positives_of_the_same_question_are_never_candidates(corpus, job, service):
    score(job(service, k=200), quiet)
    same = [row for row in read_scores(job(service).out) if row.query_key == corpus.queries[0].key]
    assert len(same) == 2
    positives = {judged.item_id for row in same for judged in row.positives}
    assert len(positives) == 2
    for row in same:
        assert not positives & {judged.item_id for judged in row.candidates}


def test_an_item_too_long_for_the_embedder_is_not_a_candidate(
    corpus, job, service, tmp_path, caplog
):
    """A query has no candidates if the query or all its positives have no vector. Other queries are complete."""
    caplog.set_level(logging.INFO)
    skipped = {
        corpus.queries[3].query_id,
        corpus.queries[9].positive_ids[0],
        corpus.items[0].item_id,
    }
    embed(corpus, tmp_path / "without", skipped=skipped)
    score(job(service, vectors=tmp_path / "without", k=200, pool="global"), quiet)
    rows = {row.query_id: row for row in read_scores(job(service).out)}
    assert len(rows) == len(corpus.queries)
    blind = {row.query_id for row in rows.values() if row.positives[0].similarity is None}
    lone = {
        query.query_id
        for query in corpus.queries
        if skipped & {query.query_id, *query.positive_ids}
    }
    assert blind == lone
    assert all(rows[query_id].candidates == [] for query_id in blind)
    assert all(row.positives[0].log_odds is not None for row in rows.values())
    assert not skipped & {judged.item_id for row in rows.values() for judged in row.candidates}
    assert sum(len(row.candidates) for row in rows.values()) > 500
    assert (
        "2 items and 1 queries have no vector: they were too long for the embedder" in caplog.text
    )


@pytest.mark.parametrize("index", ["flat", "exact", "ivf", "hnsw"])
def test_an_item_without_a_vector_is_never_found(
    corpus, job, service, tmp_path, index, monkeypatch
):
    monkeypatch.setattr(candidates, "SMALL_POOL", 0)
    skipped = {corpus.items[row].item_id for row in range(0, 40, 2)}
    embed(corpus, tmp_path / "without", skipped=skipped)
    score(job(service, vectors=tmp_path / "without", k=200, pool="global", index=index), quiet)
    found = {judged.item_id for row in read_scores(job(service).out) for judged in row.candidates}
    assert found
    assert not skipped & found


def test_candidates_come_from_the_pool_of_the_subset(corpus, job, service):
    score(job(service, pool="subset", k=200), quiet)
    for row in read_scores(job(service).out):
        for judged in row.candidates:
            assert row.subset in corpus.items[corpus.row_of[judged.item_id]].pools


def test_a_job_killed_twice_scores_every_pair_exactly_once(tmp_path, corpus, job):
    """SIGKILL stops the job twice. The third run judges only the missing shards."""

    class Gated(ScriptedJudge):
        """A judge that answers a given number of requests, and holds the other requests until the test releases
        more.
        """

        left = 0

        async def judge(self, query, candidates):
            while self.left <= 0:  # noqa: ASYNC110  the test sets it from another thread
                await asyncio.sleep(0.01)
            self.left -= 1
            return await super().judge(query, candidates)

    gate = Gated(Prompt())
    gate.left = 1
    with serving(gate) as url:
        settings = job(url, max_in_flight=4)
        command = [sys.executable, "-m", "tests.miner.run_score", settings.model_dump_json()]
        finished = []
        # Two shards of 8 queries run at the same time.
        for target, let_through in ((1, 16), (4, 30)):
            gate.left = let_through
            process = subprocess.Popen(command)
            deadline = time.monotonic() + 60
            while (
                len(list(settings.out.glob("part-*.parquet"))) < target
                and time.monotonic() < deadline
            ):
                time.sleep(0.01)
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            finished.append(len(list(settings.out.glob("part-*.parquet"))))
        assert 1 <= finished[0] <= finished[1] < 8, "the kills must fall in the middle"
        before = {
            path.name: path.stat().st_mtime_ns for path in settings.out.glob("part-*.parquet")
        }
        gate.left = 10**6
        done = score(settings, quiet)
    assert {name: (settings.out / name).stat().st_mtime_ns for name in before} == before
    rows = list(read_scores(settings.out))
    pairs = Counter(
        (row.query_id, judged.item_id)
        for row in rows
        for judged in [*row.positives, *row.candidates]
    )
    assert set(pairs.values()) == {1}
    assert [row.query_id for row in rows] == [query.query_id for query in corpus.queries]
    first_left = sum(len(r.positives) + len(r.candidates) for r in rows[8 * finished[1] :])
    assert done.counts.asked <= first_left
    assert not list(settings.out.glob("*.unijudge-draft"))
    # all files equal the files of one run without kills
    with serving(ScriptedJudge(Prompt())) as url:
        score(job(url, out=tmp_path / "again"), quiet)
    assert list(read_scores(tmp_path / "again")) == rows


def test_a_judge_swapped_under_a_running_job_stops_it(job, service, monkeypatch):
    calls = iter(range(100))
    check = Questions.check_pin

    def later(self, http):
        if next(calls) == 5:
            other = self.info.identity.model_copy(update={"weights": "new"})
            changes = {"identity": other, "digest": other.digest}
            self.info = self.info.model_copy(update=changes)
        check(self, http)

    monkeypatch.setattr(Questions, "check_pin", later)
    with pytest.raises(
        JudgeChanged, match=r"412: the request is for judge .* but this service runs scripted"
    ):
        score(job(service), quiet)
    assert not list(job(service).out.glob("*.unijudge-draft"))


def test_a_missing_judge_stops_the_job(job):
    with pytest.raises(JudgeUnavailable, match="no judge answers there"):
        score(job("http://127.0.0.1:9", retry_for_s=0.1), quiet)


def test_a_missing_image_gets_an_error_at_its_position(corpus, job, service, caplog):
    (corpus.images / "10.png").unlink()
    done = score(job(service, max_error_share=0.5), quiet)
    rows = list(read_scores(job(service).out))
    failed = [
        judged for row in rows for judged in [*row.positives, *row.candidates] if judged.error
    ]
    assert done.counts.errors == len(failed) > 0
    assert "pairs have no verdict. The first reason is unreadable: " in caplog.text
    assert all("unreadable" in judged.error and "10.png" in judged.error for judged in failed)
    assert all(judged.yes_logprob is None for judged in failed)


def test_too_many_errors_stop_the_job_before_it_writes(corpus, job, service):
    for path in corpus.images.iterdir():
        path.write_bytes(png("black"))
    with pytest.raises(
        DataError,
        match=r"pairs have no verdict, more than max_error_share.*changed since it was imported",
    ):
        score(job(service), quiet)
    assert not list(job(service).out.glob("part-*"))


def test_a_job_that_lost_its_lease_reports_the_lost_lease(job, service, monkeypatch):
    lost = threading.Event()
    monkeypatch.setattr("miner.scoring.job.lease", lambda out: contextlib.nullcontext(lost))

    def lose(progress):
        if progress.shards_done == 2:
            lost.set()

    with pytest.raises(FolderBusy, match=r"scores: the lease was lost .* written so far remain"):
        score(job(service), lose)
    lost.clear()
    assert score(job(service), quiet).shards_done == 8


def test_a_job_with_errors_prints_how_to_retry(corpus, job, service):
    (corpus.images / "10.png").unlink()
    words = overrides_of(job(service, max_error_share=0.5))
    done = CliRunner().invoke(app, ["score", *words])
    assert done.exit_code == 0, done.output
    rows = list(read_scores(job(service).out))
    failed = sum(
        judged.error is not None for row in rows for judged in [*row.positives, *row.candidates]
    )
    said = " ".join(done.output.split())
    assert f"{failed} pairs have no verdict. To retry only these pairs" in said
    assert f"run the same command with out=NEW reuse={job(service).out}" in said


def test_a_job_that_is_stopped_while_it_searches_writes_what_it_found(
    corpus, job, service, monkeypatch
):
    """A part has ten queries. The signal arrives during the search for the third part, which is abandoned."""
    monkeypatch.setattr("unijudge.formats.candidates.QUERIES_IN_PART", 10)
    found = candidates._nearest_items

    def third(rows, *rest):
        if rows.start == 20:
            signal.raise_signal(signal.SIGTERM)
        return found(rows, *rest)

    monkeypatch.setattr(candidates, "_nearest_items", third)
    stopped = score(job(service), quiet)
    assert stopped.shards_done == 0
    assert len(list((job(service).out / "candidates").glob("part-*"))) == 2
    monkeypatch.setattr(candidates, "_nearest_items", found)
    assert score(job(service), quiet).shards_done == 8
    assert [row.query_id for row in read_scores(job(service).out)] == [
        query.query_id for query in corpus.queries
    ]


@pytest.mark.parametrize("pool", ["global", "subset"])
@pytest.mark.parametrize("index", ["ivf", "hnsw", "exact"])
def test_another_index_reports_its_recall(job, service, tmp_path, index, pool, caplog):
    """In a small corpus the index misses nothing, so the scores equal those of the flat search."""
    caplog.set_level(logging.INFO)
    score(job(service, pool=pool, out=tmp_path / "flat"), quiet)
    assert "recall" not in caplog.text
    score(job(service, pool=pool, index=index, out=tmp_path / index), quiet)
    assert ("recall@50 1.0000 on 61 queries" in caplog.text) == (index != "exact")
    for row, flat in zip(
        read_scores(tmp_path / index), read_scores(tmp_path / "flat"), strict=True
    ):
        assert [one.item_id for one in row.candidates] == [one.item_id for one in flat.candidates]


def test_queries_with_fewer_candidates_are_counted_not_padded(job, service, caplog):
    caplog.set_level(logging.INFO)
    score(job(service, k=50, pool="subset"), quiet)
    short = sum(len(row.candidates) < 50 for row in read_scores(job(service).out))
    assert f"{short} of 61 queries have fewer than k = 50 candidates" in caplog.text
    assert short > 30


def test_a_service_that_is_stopped_and_started_is_waited_for(job, service, monkeypatch):
    """Ray Serve's proxy answers 404 while it has no application. The job resumes when the application runs again."""
    calls = iter(range(100))
    check = Questions.check_pin

    def stopping(self, http):
        if 3 <= next(calls) < 6:
            raise HTTPException(
                404, "Path '/v1/score' not found. Ping http://.../-/routes for available routes."
            )
        check(self, http)

    monkeypatch.setattr(Questions, "check_pin", stopping)
    assert score(job(service), quiet).shards_done == 8
