"""Scoring on a Ray cluster of two raylets: shared shards, a machine that dies, and jobs that are submitted and
cancelled.
"""

import asyncio
import os
import re
import subprocess
import sys
import time
from collections import Counter

import pytest

from judge_service.backends.scripted import ScriptedJudge
from miner.scoring.job import score
from tests.miner.conftest import corpus, job, quiet, serving  # noqa: F401  fixtures
from tests.system.clusters import cluster, free_port, kill
from tests.system.services import UNIJUDGE
from unijudge.formats.parts import part_path
from unijudge.formats.scores import read_scores
from unijudge.judging.prompt import Prompt
from unijudge.settings import overrides_of


class Slow(ScriptedJudge):
    """A judge that takes some time for each query, so that the test can act meanwhile."""

    async def judge(self, query, candidates):
        await asyncio.sleep(0.15)
        return await super().judge(query, candidates)


@pytest.fixture
def slow():
    with serving(Slow(Prompt())) as url:
        yield url


def each_once(folder, **options):
    rows = list(read_scores(folder, **options))
    pairs = Counter(
        (row.query_id, one.item_id) for row in rows for one in [*row.positives, *row.candidates]
    )
    assert set(pairs.values()) == {1}
    return rows


def wait_for(true, timeout_s=90):
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def run(*words):
    return subprocess.run(
        [UNIJUDGE, "mine", *words], capture_output=True, text=True, check=False, timeout=120
    )


def submit(words, here):
    """Submits a job, and returns its id. If the agents of the cluster are still starting, the submission is retried."""
    deadline = time.monotonic() + 90
    while True:
        done = run("submit", *words, *here)
        if done.returncode == 0:
            return done.stdout.strip()
        assert "No available agent" in done.stderr, done.stderr
        assert time.monotonic() < deadline
        time.sleep(1)


def test_two_machines_share_a_job_and_one_may_die(job, slow, tmp_path, monkeypatch):  # noqa: F811
    """The driver is a separate process, because this process may already have used Ray with another token."""
    settings = job(slow, shard_size=4, max_in_flight=2, ray_concurrency=4, k=10)

    def driver(settings):
        command = [sys.executable, "-m", "tests.miner.run_score", settings.model_dump_json()]
        return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    # Four tasks run at once, so each worker has some of them.
    machines = ("--num-cpus=0", "--num-cpus=2", "--num-cpus=2")
    with cluster(monkeypatch, *machines) as (address, (_, _, second)):
        spread = settings.model_copy(update={"engine": "ray", "ray_address": address})
        running = driver(spread)
        wait_for(lambda: len(list(settings.out.glob("part-*.parquet"))) >= 3)
        assert len(list(settings.out.glob("part-*.parquet"))) < 12
        kill(second)
        _, said = running.communicate(timeout=200)
        assert running.returncode == 0, said
        rows = each_once(settings.out)
        score(settings.model_copy(update={"out": tmp_path / "alone"}), quiet)
        assert list(read_scores(tmp_path / "alone")) == rows
        # An error that stops a task stops the job with the same message.
        for picture in (tmp_path / "images").iterdir():
            picture.unlink()
        broken = driver(
            spread.model_copy(update={"out": tmp_path / "broken", "max_error_share": 0.0})
        )
        _, said = broken.communicate(timeout=200)
        assert broken.returncode == 1
        assert re.search(
            r"DataError: shard \d+: .* of .* pairs have no verdict.*no such file", said
        ), said
    lost = driver(spread.model_copy(update={"out": tmp_path / "lost"}))
    _, said = lost.communicate(timeout=200)
    assert lost.returncode == 1
    assert f"SettingsError: ray_address: cannot connect to the Ray cluster at '{address}'" in said


def test_a_job_is_submitted_watched_cancelled_and_resumed(job, slow, monkeypatch):  # noqa: F811
    settings = job(slow, shard_size=4, max_in_flight=1, ray_concurrency=2, k=10)
    port = free_port()
    here = ["--address", f"http://127.0.0.1:{port}"]
    head = f"--include-dashboard=true --dashboard-host=127.0.0.1 --dashboard-port={port}"
    words = list(overrides_of(settings))
    # The machines of a cluster have the token in this place.
    monkeypatch.setenv("PATH", f"{UNIJUDGE.parent}:{os.environ['PATH']}")
    with cluster(monkeypatch, "--num-cpus=4", head=head):
        wait_for(lambda: run("jobs", *here).returncode == 0)
        assert run("jobs", *here).stdout == "no scoring jobs\n"
        name = submit(words, here)
        assert re.fullmatch(r"raysubmit_\w+", name)
        wait_for(lambda: part_path(settings.out, 1).exists())
        assert re.match(
            rf"{name}  RUNNING    \d+ of 16 shards  ", run("status", name, *here).stdout
        )
        assert run("cancel", name, *here).stdout.startswith(f"{name}: is stopping")
        wait_for(lambda: "STOPPED" in run("status", name, *here).stdout)
        finished = len(list(settings.out.glob("part-*")))
        assert 2 <= finished < 16
        each_once(settings.out, partial=True)
        assert "Stopped. Run the same command again to resume." in run("logs", name, *here).stdout
        assert not list(settings.out.rglob("*.unijudge-draft"))
        again = submit(words, here)
        logged = run("logs", again, "--follow", *here).stdout
        assert "16 of 16 shards" in logged
        assert f"{again}  SUCCEEDED  16 of 16 shards" in run("status", again, *here).stdout
        assert [line.split()[0] for line in run("jobs", *here).stdout.splitlines()] == [again, name]
        each_once(settings.out)
        unknown = run("status", "nobody", *here)
        assert unknown.returncode == 1
        assert "that the job id is right" in unknown.stderr
    monkeypatch.delenv("RAY_ADDRESS")  # this cluster has stopped
    nobody = run("jobs", "--address", "http://127.0.0.1:9")
    assert nobody.returncode == 1
    assert "error: http://127.0.0.1:9: " in nobody.stderr
