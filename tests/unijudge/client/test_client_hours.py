"""Hours of one client or ten clients with a slow or full service, in virtual time: no request is lost, and the shares
are fair.
"""

import asyncio
import contextlib
import itertools
import random
import socket
from collections import Counter

import httpx2
import pytest

from judge_service.backends.scripted import ScriptedJudge
from judge_service.settings import LimitSettings
from tests import virtual_time
from unijudge.client.client import JudgeClient
from unijudge.content import Content
from unijudge.errors import JudgeNowhere, JudgeUnavailable
from unijudge.judging.prompt import Prompt
from unijudge.judging.protocol import ErrorBody, Limits, ScoreResponse, ServiceInfo
from unijudge.judging.verdicts import Verdict

JUDGE = ScriptedJudge(Prompt())
ONE = [Content("candidate")]
(ANSWER,) = asyncio.run(JUDGE.judge(Content("query"), ONE))
INFO = ServiceInfo(
    identity=JUDGE.identity,
    digest=JUDGE.identity.digest,
    limits=Limits(**LimitSettings().model_dump(), blobs=False),
    shape=None,
    replicas=1,
).model_dump_json()


class Service(httpx2.AsyncBaseTransport):
    """A service whose slots take some seconds for each request, with a queue in order."""

    def __init__(self, *, seconds, slots=1, waiting=10**9, drops=True, retry_after_s=1):
        """Starts without requests.

        Args:
            seconds: Seconds of a request in its slot.
            slots: Number of requests that run at once.
            waiting: Number of requests that may wait. Further requests are refused with 429.
            drops: Whether the service stops the work for clients that have left.
            retry_after_s: The `Retry-After` of refused requests.
        """
        self.seconds, self.slots, self.waiting, self.drops = seconds, slots, waiting, drops
        self.retry_after_s = retry_after_s
        self.free = asyncio.Semaphore(slots)
        self.inside = 0
        self.begun, self.answered, self.refused = Counter(), Counter(), 0
        self.working = set()

    async def handle_async_request(self, request):
        if request.method == "GET":
            return httpx2.Response(200, content=INFO)
        if self.inside >= self.slots + self.waiting:
            self.refused += 1
            body = ErrorBody(code="busy", message="no").model_dump()
            return httpx2.Response(429, json=body, headers={"Retry-After": str(self.retry_after_s)})
        work = asyncio.create_task(self.work(request.content))
        self.working.add(work)
        work.add_done_callback(self.working.discard)
        await (work if self.drops else asyncio.shield(work))
        self.answered[request.content] += 1
        answer = ScoreResponse(identity=JUDGE.identity, results=[ANSWER])
        return httpx2.Response(200, content=answer.model_dump_json())

    async def work(self, content):
        self.inside += 1
        try:
            async with self.free:
                self.begun[content] += 1
                await asyncio.sleep(self.seconds)
        finally:
            self.inside -= 1


async def job(service, queries, **options):
    """Sends all queries at once. The client chooses the number in flight. Returns the answers and the hours."""
    async with JudgeClient("http://judge", transport=service, **options) as client:
        slots = asyncio.Semaphore(options["max_in_flight"])

        async def ask(number):
            async with slots:
                return await client.judge(Content(f"query {number}"), ONE)

        return await asyncio.gather(*(ask(number) for number in range(queries)))


MINER = {"max_in_flight": 128, "request_timeout_s": 300, "retry_for_s": 600}


@pytest.mark.parametrize("drops", [True, False])
@pytest.mark.parametrize("seconds", [0.1, 4.5, 19, 60])
def test_a_miner_with_128_in_flight_finishes_on_one_slow_replica(monkeypatch, seconds, drops):
    """If a request takes 2.4 s or more, 128 requests in flight would wait longer than the five minutes of each.

    The replica is never idle, and does no useless work, although it may not notice that a client has left.
    """

    async def run():
        service = Service(seconds=seconds, drops=drops)
        answers = await job(service, 500, **MINER)
        return answers, service, asyncio.get_running_loop().time()

    answers, service, time_s = virtual_time.run(run(), monkeypatch)
    assert all(isinstance(verdict, Verdict) for (verdict,) in answers)
    assert len(service.answered) == 500
    assert set(service.answered.values()) == {1}
    assert 500 * seconds > 0.97 * time_s
    assert sum(service.begun.values()) < 1.02 * 500


@pytest.mark.parametrize("drops", [True, False])
def test_a_miner_outlives_a_service_that_becomes_ten_times_as_slow(monkeypatch, drops):
    """The requests in flight are too late then.

    No request is lost or answered twice, and the job continues at the new pace.
    """

    async def run():
        service = Service(seconds=0.5, drops=drops)
        working = asyncio.create_task(job(service, 1000, **MINER))
        await asyncio.sleep(250)  # half of the requests, at half a second each
        service.seconds = 5
        return await working, service, asyncio.get_running_loop().time()

    answers, service, time_s = virtual_time.run(run(), monkeypatch)
    assert all(isinstance(verdict, Verdict) for (verdict,) in answers)
    assert len(service.answered) == 1000
    assert set(service.answered.values()) == {1}
    assert 0.8 * time_s < 500 * (0.5 + 5)


@pytest.mark.parametrize(("waiting", "fair"), [(64, 0.9), (256, 0.95)])
def test_ten_clients_share_one_service_and_keep_it_busy(monkeypatch, waiting, fair):
    """Each client would have 64 requests in flight, which is more than ten times, or more than twice, the room of the
    service. During two minutes, a short queue is shared less fairly than a long queue, because a client that meets a
    full queue first gets less.
    """
    random.seed(0)
    alone, together = (
        virtual_time.run(
            shares(Service(seconds=0.2, slots=4, waiting=waiting), clients), monkeypatch
        )
        for clients in (1, 10)
    )
    # Jain's fairness index.
    assert sum(together) ** 2 / (10 * sum(share**2 for share in together)) > fair
    assert sum(together) > 0.95 * sum(alone)


async def shares(service, clients, for_s=120, max_in_flight=64):
    """Returns the number of answers of each client in some time."""
    counts = [0] * clients

    async def client(number):
        async with JudgeClient(
            "http://judge", transport=service, max_in_flight=max_in_flight
        ) as judge:

            async def asking(worker):
                for query in itertools.count():
                    await judge.judge(Content(f"{number}.{worker}.{query}"), ONE)
                    counts[number] += 1

            await asyncio.gather(*map(asking, range(max_in_flight)))

    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(for_s):
            await asyncio.gather(*map(client, range(clients)))
    return counts


class Nowhere(httpx2.AsyncBaseTransport):
    """A host that refuses connections for a while, and whose name is unknown."""

    def __init__(self, refuses=0):
        self.refuses = refuses

    async def handle_async_request(self, request):
        self.refuses -= 1
        if self.refuses >= 0:
            raise httpx2.ConnectError("Connection refused")
        raise httpx2.ConnectError("Name or service not known") from socket.gaierror(
            -2, "Name or service not known"
        )


@pytest.mark.parametrize(("refuses", "least_s", "most_s"), [(0, 15, 30), (3, 250, 300)])
def test_a_service_with_an_unknown_host_name_is_given_up_soon(
    monkeypatch, refuses, least_s, most_s
):
    """If the host was known before, its name may come back."""

    async def enter():
        begun = asyncio.get_running_loop().time()
        with pytest.raises(JudgeUnavailable) as refusal:
            async with JudgeClient(
                "http://me:secret@judg:8000", transport=Nowhere(refuses), retry_for_s=300
            ):
                pass
        return refusal.value, asyncio.get_running_loop().time() - begun

    error, took_s = virtual_time.run(enter(), monkeypatch)
    assert isinstance(error, JudgeNowhere)
    assert least_s < took_s <= most_s
    assert str(error) == (
        "http://judg:8000: the host name is not known here (ConnectError: Name or service not known). "
        "Correct the URL, or check this machine's name service (DNS)"
    )
