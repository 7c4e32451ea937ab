"""The client with a service that is slow, busy, full or silent: the client adapts, retries at the given time, and gives
up. Answered requests are never sent again, and no request is lost.
"""

import asyncio
import contextlib
from collections import Counter

import httpx2
import pytest
from tenacity import RetryCallState

from judge_service.backends.scripted import ScriptedJudge
from judge_service.replica.app import create_app
from judge_service.replica.health import WatchedJudge
from judge_service.settings import HealthSettings, LimitSettings
from tests.unijudge.client.changing import Changing
from unijudge.client.client import JudgeClient
from unijudge.client.patience import Patience
from unijudge.client.retry import SHORTEST_WAIT_S, VAIN_TIMES, _wait
from unijudge.content import Content
from unijudge.errors import JudgeBusy, JudgeLate, JudgeRefused, SettingsError
from unijudge.judging.prompt import Prompt
from unijudge.judging.protocol import ErrorBody, Limits, ServiceInfo
from unijudge.judging.verdicts import Verdict

ONE = [Content("candidate")]


def app_of(judge):
    return create_app(WatchedJudge(judge, HealthSettings(canary_every_s=0)), LimitSettings())


@pytest.fixture
def app():
    return app_of(ScriptedJudge(Prompt()))


def queries(number, name="query"):
    return [Content(f"{name} {n}") for n in range(number)]


def busy(status=429, code="busy", **headers):
    return httpx2.Response(
        status, json=ErrorBody(code=code, message="no").model_dump(), headers=headers
    )


def answers_and_requests(app, change, number=1, **options):
    """Returns the answers to some queries, and the requests that were sent for them through a changing network."""

    async def ask():
        transport = Changing(app, change)
        async with JudgeClient("http://judge", transport=transport, **options) as client:
            answers = await asyncio.gather(*(client.judge(query, ONE) for query in queries(number)))
        return answers, transport.seen

    return asyncio.run(ask())


def test_a_client_that_could_send_nothing_is_refused():
    with pytest.raises(
        SettingsError,
        match=r"max_in_flight = 0, first = 4: no request could ever be sent\. Set 1 or more",
    ):
        JudgeClient("http://judge", max_in_flight=0)


# One deadline


@contextlib.asynccontextmanager
async def dribbling(part, identity):
    """A service that gives its identity, and then answers a request one byte at a time without an end, or reads no
    request.
    """
    limits = Limits(**LimitSettings().model_dump(), blobs=False)
    info = ServiceInfo(
        identity=identity, digest=identity.digest, limits=limits, shape=None, replicas=1
    )

    async def serve(reader, writer):
        try:
            await answer(await reader.readuntil(b"\r\n\r\n"), writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:  # also if the test has ended and this task is cancelled
            writer.transport.abort()

    async def answer(head, writer):
        if head.startswith(b"GET"):
            body = info.model_dump_json().encode()
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body)
                + body
            )
            writer.close()
            await writer.wait_closed()
            return
        if part == "nothing":
            await asyncio.Event().wait()
        writer.write(
            b"HTTP/1.1 200 OK\r\n" + (b"Content-Length: 9999\r\n\r\n" if part == "body" else b"X: ")
        )
        while True:
            await asyncio.sleep(0.05)
            writer.write(b"x")
            await writer.drain()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


@pytest.mark.parametrize("part", ["head", "body", "nothing"])
def test_a_server_that_answers_one_byte_at_a_time_is_given_up(identity, part):
    # The body is larger than the buffers of the sockets, so sending does not end either.
    large = [Content("x" * 2**23)]

    async def ask():
        async with (
            dribbling(part, identity) as url,
            JudgeClient(url, request_timeout_s=0.4, retry_for_s=0) as client,
        ):
            await client.judge(Content("a"), ONE if part != "nothing" else large)

    with pytest.raises(
        JudgeLate, match=r"/v1/score: no complete answer within 0\.4 s\. Raise request_timeout_s"
    ):
        asyncio.run(asyncio.wait_for(ask(), 30))


@pytest.mark.parametrize(("timeout_s", "told"), [(120, "119.5"), (5, "4.5"), (1, "0.9")])
def test_each_try_sends_its_deadline_to_the_service(app, timeout_s, told):
    """The deadline leaves time for the transport of the answer."""

    async def change(number, request, go_on):
        return busy() if number < 3 else await go_on(request)

    _, sent = answers_and_requests(app, change, request_timeout_s=timeout_s)
    assert [request.headers["Judge-Timeout"] for request in sent if request.method == "POST"] == [
        told
    ] * 3


# When to come back


@pytest.mark.parametrize("asked_s", [0.5, 1, 30, 120, 3600])
def test_retries_wait_as_long_as_the_service_requires_and_are_spread(asked_s):
    waits = set()
    for tries in range(1, 200):
        error = JudgeBusy("no")
        error.retry_after_s = asked_s
        state = RetryCallState(None, None, (), {})
        state.attempt_number = tries
        state.set_exception((JudgeBusy, error, None))
        waits.add(_wait(state))
    assert len(waits) == 199
    assert asked_s <= min(waits) < 1.1 * asked_s
    assert 1.4 * asked_s < max(waits) <= 1.5 * asked_s


def test_a_request_waits_as_long_as_the_service_requires(app, monkeypatch):
    waited = []

    def wait(state):
        waited.append(_wait(state))
        return 0.0

    async def change(number, request, go_on):
        headers = {1: {"Retry-After": "7"}, 2: {"Retry-After": "0"}, 3: {"Retry-After": "nan"}}
        return (
            busy(503, "not_ready", **headers[number]) if number in headers else await go_on(request)
        )

    monkeypatch.setattr("unijudge.client.retry._wait", wait)
    answers_and_requests(app, change)
    assert 7 <= waited[0] <= 10.5
    assert all(SHORTEST_WAIT_S <= wait <= 1.5 * SHORTEST_WAIT_S for wait in waited[1:])
    assert len(waited) == 3


@pytest.mark.parametrize("told", ["60", "1e9", "inf"])
def test_a_client_gives_up_at_once_if_the_retry_time_is_too_late(app, told):
    sent = []

    async def change(number, request, go_on):
        sent.append(number)
        return busy(503, "draining", **{"Retry-After": told})

    with pytest.raises(JudgeBusy, match="503: no"):
        answers_and_requests(app, change, retry_for_s=30)
    assert sent == [1]


@pytest.mark.parametrize(
    ("status", "code", "halves"),
    [
        (429, "busy", True),
        (503, "draining", True),
        (503, "too_late", True),
        (408, "unknown", True),
        (504, "unknown", True),
        (500, "internal", False),
        (502, "unknown", False),
        (404, "unknown", False),
    ],
)
def test_overload_answers_halve_the_requests_in_flight(app, monkeypatch, status, code, halves):
    """The first of sixteen requests is refused. Its next try is answered like the other requests."""
    monkeypatch.setattr("unijudge.client.retry.backoff", lambda _: 0.01)

    async def ask():
        async def change(number, request, go_on):
            await asyncio.sleep(
                0.02 if number == 1 else 0.1
            )  # so the sixteen requests are in flight together
            if number == 1:
                return busy(status, code)
            return await go_on(request)

        async with JudgeClient(
            "http://judge", transport=Changing(app, change), first=16, max_in_flight=16
        ) as client:
            answers = await asyncio.gather(*(client.judge(query, ONE) for query in queries(16)))
            return answers, client._connection._retrying._limit.number

    answers, number = asyncio.run(ask())
    assert all(isinstance(verdict, Verdict) for (verdict,) in answers)
    assert number == (8 if halves else 16)


# A crowd


class Service(httpx2.ASGITransport):
    """A service that accepts some requests at once, and answers 429 to further requests.

    It counts its answers and refusals.
    """

    def __init__(self, room, seconds=0.002):
        super().__init__(app_of(ScriptedJudge(Prompt(), delay_s=seconds)))
        self.room, self.inside, self.answered, self.refused = room, 0, Counter(), 0
        self.most = 0
        self.one_at_a_time = asyncio.Semaphore(1)

    async def handle_async_request(self, request):
        if request.method == "GET":
            return await super().handle_async_request(request)
        if self.inside >= self.room:
            self.refused += 1
            return busy(**{"Retry-After": "0.01"})
        self.inside += 1
        try:
            async with self.one_at_a_time:
                answer = await super().handle_async_request(request)
        finally:
            self.inside -= 1
        self.answered[request.content] += 1
        return answer


def crowd(service, clients, number, **options):
    async def client(name):
        async with JudgeClient("http://judge", transport=service, **options) as judge:
            return await asyncio.gather(
                *(judge.judge(query, ONE) for query in queries(number, name))
            )

    async def run():
        return await asyncio.gather(*(client(f"client {n}, query") for n in range(clients)))

    return asyncio.run(run())


def test_ten_clients_of_one_full_service_are_all_answered_once(monkeypatch):
    """Each client would have 32 requests in flight. All clients together have room for 24."""
    monkeypatch.setattr("unijudge.client.retry.SHORTEST_WAIT_S", 0.01)
    service = Service(room=24)
    answers = crowd(service, 10, 30, max_in_flight=32)
    alone = ScriptedJudge(Prompt())
    for n, found in enumerate(answers):
        assert found == [
            asyncio.run(alone.judge(query, ONE)) for query in queries(30, f"client {n}, query")
        ]
    assert len(service.answered) == 300
    assert set(service.answered.values()) == {1}
    assert service.refused > 0


def test_a_full_service_is_not_flooded_by_waiting_requests(monkeypatch):
    """A refused request keeps its place, so the hundreds of requests behind it are not sent and refused as well."""
    service = Service(room=4)
    monkeypatch.setattr("unijudge.client.retry.SHORTEST_WAIT_S", 0.01)
    crowd(service, 1, 300, max_in_flight=128)
    assert set(service.answered.values()) == {1}
    assert 0 < service.refused < 300


def test_all_waiting_requests_give_up_a_silent_service(app):
    """One request is in flight at a time. The nineteen requests behind it do not try again one after the other."""
    sent = []

    async def change(number, request, go_on):
        sent.append(number)
        await asyncio.sleep(60)

    async def ask():
        transport = Changing(app, change)
        options = {
            "max_in_flight": 1,
            "request_timeout_s": 0.1,
            "retry_for_s": 0.5,
            "transport": transport,
        }
        async with JudgeClient("http://judge", **options) as client:
            asking = (client.judge(query, ONE) for query in queries(20))
            return await asyncio.gather(*asking, return_exceptions=True)

    found = asyncio.run(ask())
    assert all(isinstance(error, JudgeLate) for error in found)
    assert len(sent) < 40


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (None, r"no complete answer within 0\.5 s"),
        (busy(), "429: no"),
        (httpx2.Response(502), "502: Bad Gateway"),
    ],
)
def test_a_question_that_alone_gets_no_answer_is_refused_alone(app, monkeypatch, answer, reason):
    """Other requests are still answered, so the service is reachable.

    The job gets an error for the pairs of this request only.
    """
    monkeypatch.setattr("unijudge.client.retry.backoff", lambda _: 0.1)
    sent = []

    async def change(number, request, go_on):
        if b"slow" not in request.content:
            return await go_on(request)
        sent.append(number)
        await asyncio.sleep(60 if answer is None else 0)
        return answer

    async def ask():
        transport = Changing(app, change)
        options = {"request_timeout_s": 0.5, "retry_for_s": 4, "transport": transport}
        async with JudgeClient("http://judge", **options) as client:
            slow = asyncio.create_task(client.judge(Content("slow"), ONE))
            while not slow.done():
                await client.judge(Content("quick"), ONE)
                await asyncio.sleep(0.001)
            return await slow

    with pytest.raises(JudgeRefused, match=f"{reason}.*while it was tried for"):
        asyncio.run(ask())
    most = VAIN_TIMES if answer is None else 4 / 0.1
    assert 1 < len(sent) <= most + 1


def test_the_retry_time_restarts_with_each_answer(app, monkeypatch):
    """A service that answers one of ten tries is slow, but reachable, however long a request waits."""
    monkeypatch.setattr("unijudge.client.retry.backoff", lambda _: 0.01)
    given_up = []
    is_over = Patience.is_over

    def seen(self, state):
        given_up.append(is_over(self, state))
        return given_up[-1]

    async def change(number, request, go_on):
        await asyncio.sleep(0.01)
        return await go_on(request) if number % 10 == 0 else busy()

    monkeypatch.setattr(Patience, "is_over", seen)
    answers, _ = answers_and_requests(app, change, number=20, retry_for_s=1.0, max_in_flight=2)
    assert all(isinstance(verdict, Verdict) for (verdict,) in answers)
    assert len(given_up) == 180
    assert not any(given_up)
