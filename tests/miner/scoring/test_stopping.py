"""A job that is stopped: its threads end, and then its lease is free. A second signal ends the job at once."""

import asyncio
import contextlib
import signal
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from miner.cli import app
from miner.estimate import estimate
from miner.estimate.estimate import estimate_cost
from miner.retrieval import candidates
from miner.scoring.job import score
from miner.stopping import SIGNALS, Stopped, listening
from tests.miner.conftest import quiet, serving
from tests.miner.counting import Counting
from unijudge.cli import INTERRUPTED
from unijudge.errors import FolderBusy
from unijudge.settings import overrides_of
from unijudge.storage.leases import lease


@pytest.fixture
def events(monkeypatch):
    """The events in order, for parts of ten queries. A signal arrives during the slow search of the third part."""
    happened = []
    monkeypatch.setattr("unijudge.formats.candidates.QUERIES_IN_PART", 10)
    found = candidates._nearest_items

    def third(rows, *rest):
        if rows.start == 20 and not happened:
            happened.append("signal")
            signal.raise_signal(signal.SIGINT)
            time.sleep(0.5)
        try:
            yield from found(rows, *rest)
        except Stopped:
            happened.append("the search ended")
            raise

    @contextlib.contextmanager
    def watched(out):
        with lease(out) as stop:
            yield stop
        happened.append("the lease is free")

    monkeypatch.setattr(candidates, "_nearest_items", third)
    monkeypatch.setattr(estimate, "lease", watched)
    return happened


def test_a_plan_frees_its_lease_when_its_search_has_ended(job, service, events):
    before = [signal.getsignal(number) for number in SIGNALS]
    with pytest.raises(Stopped):
        estimate_cost(job(service), 20)
    assert events == ["signal", "the search ended", "the lease is free"]
    assert len(list((job(service).out / "candidates").glob("part-*"))) == 2
    assert [signal.getsignal(number) for number in SIGNALS] == before
    assert score(job(service), quiet).shards_done == 8


def test_a_plan_that_was_stopped_has_the_status_of_ctrl_c(job, service, events):
    words = overrides_of(job(service))
    done = CliRunner().invoke(app, ["estimate", *words])
    assert done.exit_code == INTERRUPTED


def test_a_plan_stops_while_it_probes(job):
    class Slow(Counting):
        async def judge(self, query, candidates):
            if (query.text or "").startswith("find"):
                signal.raise_signal(signal.SIGTERM)
                await asyncio.sleep(3)
            return await super().judge(query, candidates)

    with serving(Slow()) as url, pytest.raises(Stopped):
        estimate_cost(job(url), 20)
    with lease(job("x").out):
        pass


def test_a_plan_that_lost_its_lease_is_reported(job, service, monkeypatch):
    @contextlib.contextmanager
    def lost(out):
        with lease(out) as stop:
            stop.set()
            yield stop

    monkeypatch.setattr(estimate, "lease", lost)
    with pytest.raises(FolderBusy, match="scores: the lease was lost"):
        estimate_cost(job(service), 20)


def test_a_second_signal_ends_the_process_at_once(job):
    class Hanging(Counting):
        async def judge(self, query, candidates):
            answers = await super().judge(query, candidates)
            if (query.text or "").startswith("find"):
                await asyncio.sleep(20)
            return answers

    judge = Hanging()
    with serving(judge) as url:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.miner.run_score", job(url).model_dump_json()],
            stderr=subprocess.PIPE,
        )
        deadline = time.monotonic() + 60
        while not judge.pairs and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == -signal.SIGINT
        process.stderr.close()


def test_one_signal_stops_the_job_and_the_handlers_are_restored():
    before, heard = [signal.getsignal(number) for number in SIGNALS], []

    async def run():
        with listening(heard, lambda number: None):
            signal.raise_signal(signal.SIGTERM)
            await asyncio.sleep(0.1)
            assert [signal.getsignal(number) for number in SIGNALS] == [signal.SIG_DFL] * 2

    asyncio.run(run())
    assert heard == [signal.SIGTERM]
    assert [signal.getsignal(number) for number in SIGNALS] == before
