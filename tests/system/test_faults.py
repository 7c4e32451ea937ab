"""Processes that die beside the replicas: Ray's proxy, its controller, and `judge serve` itself. bench/faults has more
cases.
"""

import asyncio
import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from tests.system.services import service
from unijudge.client.client import JudgeClient
from unijudge.content import Content

SCRIPTED = "model.backend=scripted"
QUESTIONS = [Content(text=f"question {number}") for number in range(40)]
CANDIDATES = [Content(text="one"), Content(text="another")]
PATIENCE_S = 120


def processes_with(process, title):
    """The processes of the service whose titles contain these words."""

    def has_title(child):
        try:
            return title in " ".join(child.cmdline())
        except psutil.NoSuchProcess:
            return False

    return [
        child for child in psutil.Process(process.pid).children(recursive=True) if has_title(child)
    ]


async def answers_during(url, blow):
    """Returns the answers to all requests. The fault happens after the first answer."""
    async with JudgeClient(url, retry_for_s=PATIENCE_S, max_in_flight=8) as judge:

        async def ask(question):
            return await judge.judge(question, CANDIDATES)

        first, *rest = [asyncio.create_task(ask(question)) for question in QUESTIONS]
        await first
        await asyncio.to_thread(blow)
        return await asyncio.gather(first, *rest)


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    """The answers of a service without faults."""
    with service(tmp_path_factory.mktemp("quiet"), SCRIPTED) as (_, url, _):
        yield asyncio.run(answers_during(url, lambda: None))


def test_front_and_controller_are_started_again_and_no_question_is_lost(tmp_path, truth):
    """Each process is killed while many requests run, and a new process replaces it."""
    with service(tmp_path, SCRIPTED, "model.scripted_delay_s=0.1") as (process, url, log):
        for title in ("ServeController", "ProxyActor"):
            (victim,) = processes_with(process, title)
            assert asyncio.run(answers_during(url, victim.kill)) == truth
            deadline = time.monotonic() + PATIENCE_S
            while (
                not [one for one in processes_with(process, title) if one != victim]
                and time.monotonic() < deadline
            ):
                time.sleep(0.2)
            assert [one for one in processes_with(process, title) if one != victim], log.read_text()


def test_a_client_of_a_killed_service_is_answered_by_the_next_service_on_the_port(tmp_path, truth):
    second = tmp_path / "second"
    second.mkdir()
    with service(tmp_path, SCRIPTED, "model.scripted_delay_s=0.1") as (first, url, _):
        port = f"port={url.rpartition(':')[2]}"
        next_one = service(second, SCRIPTED, port, wait=False)

        def killed_and_started_again():
            first.send_signal(signal.SIGKILL)
            first.wait(PATIENCE_S)
            next_one.__enter__()

        try:
            assert asyncio.run(answers_during(url, killed_and_started_again)) == truth, (
                second / "service.log"
            ).read_text()
        finally:
            next_one.__exit__(None, None, None)


def test_a_pair_that_always_kills_its_replica_gets_an_error(tmp_path, truth, monkeypatch):
    """Other pairs on the same replica at the same time get verdicts. The pair kills at most four times."""
    deaths = tmp_path / "deaths"
    monkeypatch.setenv(
        "PYTHONPATH", str(Path(__file__).parents[2] / "bench" / "deadly"), prepend=os.pathsep
    )
    monkeypatch.setenv("UNIJUDGE_BENCH_LETHAL", "lethal")
    monkeypatch.setenv("UNIJUDGE_BENCH_DEATHS", str(deaths))

    async def story(url):
        async with JudgeClient(url, retry_for_s=PATIENCE_S, max_in_flight=8) as judge:
            asked = {question: list(CANDIDATES) for question in QUESTIONS}
            asked[QUESTIONS[7]].append(Content(text="lethal"))
            return await asyncio.gather(*(judge.judge(*one) for one in asked.items()))

    with service(tmp_path, SCRIPTED, "model.scripted_delay_s=0.1") as (_, url, log):
        answers = asyncio.run(story(url))
        error = answers[7].pop()
        assert answers == truth, log.read_text()
    assert error.code == "kills_judge"
    assert deaths.read_text().splitlines() == [QUESTIONS[7].text] * 4
