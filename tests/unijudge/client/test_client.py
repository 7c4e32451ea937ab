"""The client's reaction to refusals, to failures of the service, and to answers of another judge."""

import asyncio
import errno

import httpx2
import pytest

from judge_service.backends.scripted import ScriptedJudge
from judge_service.front.blobs import BlobStore
from judge_service.replica.app import create_app
from judge_service.replica.health import WatchedJudge
from judge_service.settings import HealthSettings, LimitSettings
from tests.judge_service.replica.judges import Counting
from tests.pictures import noise
from tests.unijudge.client.changing import Changing
from unijudge.client.client import JudgeClient
from unijudge.client.retry import FAILED_TRIES
from unijudge.content import Content
from unijudge.errors import JudgeChanged, JudgeRefused, JudgeUnavailable, UnijudgeError
from unijudge.judging.prompt import Prompt
from unijudge.judging.protocol import ErrorBody
from unijudge.judging.verdicts import Cost, PairError, Verdict
from unijudge.storage.reaching import FROM_OUTSIDE

QUERY = Content("a query")
SEVEN = [Content(f"candidate {number}") for number in range(7)]
"""Three requests, of three candidates at most."""


@pytest.fixture
def app():
    judge = WatchedJudge(ScriptedJudge(Prompt()), HealthSettings(canary_every_s=0))
    return create_app(judge, LimitSettings(max_candidates=3))


def answers_and_count(app, method="judge", candidates=SEVEN, spoil=(), change=None, retry_for_s=30):
    """Returns the answers, and the number of requests that were sent."""

    async def ask():
        transport = Counting(app, spoil)
        if change is not None:
            transport = Changing(app, change)
        async with JudgeClient(
            "http://judge", transport=transport, retry_for_s=retry_for_s
        ) as client:
            found = await getattr(client, method)(QUERY, candidates)
        return found, sum(request.method == "POST" for request in transport.seen)

    return asyncio.run(ask())


def refusing(*numbers, status=422, code="bad_query"):
    async def change(number, request, go_on):
        if number in numbers:
            return httpx2.Response(status, json=ErrorBody(code=code, message="no").model_dump())
        return await go_on(request)

    return change


@pytest.mark.parametrize(
    ("status", "code"), [(422, "bad_query"), (400, "bad_request"), (413, "too_large")]
)
@pytest.mark.parametrize("refused", [1, 2, 3])
def test_a_refused_request_fails_only_its_own_candidates(app, refused, status, code):
    whole, _ = answers_and_count(app)
    found, sent = answers_and_count(app, change=refusing(refused, status=status, code=code))
    lost = range(3 * (refused - 1), min(3 * refused, 7))
    assert sent == 3
    for place, (answer, expected) in enumerate(zip(found, whole, strict=True)):
        if place in lost:
            assert answer == PairError(
                code="refused", message=f"http://judge/v1/score: {status}: no"
            )
        else:
            assert answer == expected


def test_a_query_whose_requests_are_all_refused_is_refused(app):
    with pytest.raises(JudgeRefused, match="422: no"):
        answers_and_count(app, change=refusing(1, 2, 3))
    with pytest.raises(JudgeRefused, match="422: no"):
        answers_and_count(app, candidates=SEVEN[:2], change=refusing(1))


def test_a_request_that_the_service_fails_on_is_refused_after_a_few_tries(app, monkeypatch):
    """The error does not mean that the service is busy.

    For a busy service, the client retries as long as the settings allow.
    """
    monkeypatch.setattr("unijudge.client.retry.backoff", lambda _: 0.01)
    broken = httpx2.Response(
        500, json=ErrorBody(code="internal", message="its log says why").model_dump()
    )
    with pytest.raises(JudgeRefused, match=r"500: its log says why\. It was sent 3 times"):
        answers_and_count(app, candidates=SEVEN[:1], spoil=[broken] * 9)
    found, sent = answers_and_count(app, candidates=SEVEN[:1], spoil=[broken] * (FAILED_TRIES - 1))
    assert isinstance(found[0], Verdict)
    assert sent == FAILED_TRIES
    busy = httpx2.Response(503)
    found, sent = answers_and_count(
        app, candidates=SEVEN[:1], spoil=[busy, broken, busy, busy, broken, busy]
    )
    assert isinstance(found[0], Verdict)
    assert sent == 7
    with pytest.raises(JudgeUnavailable, match="503"):
        answers_and_count(app, candidates=SEVEN[:1], spoil=[busy] * 99, retry_for_s=0.5)


def test_a_request_that_always_fails_costs_its_own_pairs(app, monkeypatch):
    """The failures of this request stop neither the other requests nor the job."""
    monkeypatch.setattr("unijudge.client.retry.backoff", lambda _: 0.01)

    async def change(number, request, go_on):
        if b"candidate 4" in request.content:
            return httpx2.Response(500, json=ErrorBody(code="internal", message="no").model_dump())
        return await go_on(request)

    found, sent = answers_and_count(app, change=change)
    assert [isinstance(answer, Verdict) for answer in found] == [True] * 3 + [False] * 3 + [True]
    assert sent == 2 + FAILED_TRIES


@pytest.mark.parametrize("method", ["judge", "choose"])
def test_an_answer_of_another_judge_is_not_accepted(app, method):
    """A proxy drops the pin, and sends the request to another judge."""
    other = WatchedJudge(
        ScriptedJudge(Prompt(instruction="Another?")), HealthSettings(canary_every_s=0)
    )
    elsewhere = httpx2.ASGITransport(create_app(other, LimitSettings(max_candidates=3)))

    async def change(number, request, go_on):
        del request.headers["If-Match"]
        return await elsewhere.handle_async_request(request)

    with pytest.raises(
        JudgeChanged,
        match=r"/v1/\w+: asked scripted \(.*answers: prompt_fingerprint is '\w+', not '",
    ):
        answers_and_count(app, method, SEVEN[:3], change=change)


def test_half_a_character_fails_only_its_own_pair(app):
    """The text was cut inside an emoji. JSON in UTF-8 cannot represent half of it."""
    whole, _ = answers_and_count(app)
    found, sent = answers_and_count(app, candidates=[*SEVEN[:3], Content("cut \ud83d"), *SEVEN[3:]])
    assert (found[:3], found[4:]) == (whole[:3], whole[3:])
    assert (found[3].code, "half a character" in found[3].message) == ("bad_text", True)
    chosen, sent = answers_and_count(app, "choose", candidates=[SEVEN[0], Content("cut \ud83d")])
    assert (chosen.code, sent) == ("bad_text", 0)
    with pytest.raises(JudgeRefused, match="the query: its text holds half a character"):
        asyncio.run(verdicts_of_seven(app, Content("cut \ud83d")))


async def verdicts_of_seven(app, query):
    async with JudgeClient("http://judge", transport=Counting(app)) as client:
        return await client.judge(query, SEVEN)


def test_an_empty_image_is_an_error_at_its_position(app):
    """The candidate gets the same error as any candidate without content, and never the verdict of its text alone."""
    whole, _ = answers_and_count(app)
    odd = [Content("a cat", b""), Content(""), Content("  \u200b"), Content(image=b"")]
    found, _ = answers_and_count(app, candidates=[SEVEN[0], *odd])
    assert found[0] == whole[0]
    assert [getattr(answer, "code", "verdict") for answer in found[1:]] == [
        "bad_image",
        "empty",
        "empty",
        "bad_image",
    ]


def test_a_damaged_answer_is_requested_again(app):
    async def damaged(number, request, go_on):
        if number == 1:
            return httpx2.Response(200, headers={"Content-Encoding": "gzip"}, stream=Broken())
        return await go_on(request)

    assert answers_and_count(app, change=damaged)[0] == answers_and_count(app)[0]
    with pytest.raises(JudgeUnavailable, match=r"its answer cannot be read \(DecodingError"):
        answers_and_count(app, change=always_damaged, retry_for_s=0.1)


async def always_damaged(number, request, go_on):
    return httpx2.Response(200, headers={"Content-Encoding": "gzip"}, stream=Broken())


class Broken(httpx2.AsyncByteStream):
    async def __aiter__(self):
        yield b"no gzip at all"


def test_an_image_too_large_to_store_does_not_stop_other_uploads(tmp_path):
    judge = WatchedJudge(ScriptedJudge(Prompt()), HealthSettings(canary_every_s=0))
    large, small = noise(1, (200, 200)), noise(2)
    limits = LimitSettings(max_body_bytes=len(large) - 1)
    app = create_app(judge, limits, blobs=BlobStore(tmp_path / "blobs", max_bytes=2**24))

    async def ask():
        transport = Counting(app)
        async with JudgeClient("http://judge", transport=transport) as client:
            await client.store([Content(image=large), Content(image=small)])
            answers = await client.judge(QUERY, [Content(image=small)])
        return answers, [(request.method, len(request.content)) for request in transport.seen]

    answers, sent = asyncio.run(ask())
    assert isinstance(answers[0], Verdict)
    assert sent[-1][1] < len(small), "named, not inside"
    assert ("PUT", len(small)) in sent


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        (
            "ALL_PROXY",
            "socks5://me:secret@proxy:9",
            "cannot be reached with the environment's proxy",
        ),
        ("HTTP_PROXY", "ftp://proxy", "cannot be reached with the environment's proxy"),
        ("SSL_CERT_FILE", "/nowhere/at/all", "cannot be reached with the environment's proxy"),
        (
            "HTTP_PROXY",
            "http://me:secret@127.0.0.1:9",
            r"no judge answers there through the proxy http://127.0.0.1:9 ",
        ),
    ],
)
def test_an_unusable_proxy_or_certificate_is_named_and_not_used_for_local_services(
    monkeypatch, name, value, reason
):
    for one in (*FROM_OUTSIDE, *(one.lower() for one in FROM_OUTSIDE)):
        monkeypatch.delenv(one, raising=False)
    monkeypatch.setenv(name, value)

    async def enter(url):
        async with JudgeClient(url, retry_for_s=0.1):
            pass

    with pytest.raises(UnijudgeError, match=f"http://far:1.*{reason}.*{name}") as found:
        asyncio.run(enter("http://far:1"))
    assert "secret" not in str(found.value)
    for here in ("http://127.0.0.1:9", "http://localhost:9", "http://[::1]:9"):
        with pytest.raises(JudgeUnavailable, match=r"no judge answers there \(Connect"):
            asyncio.run(enter(here))


def test_too_many_open_files_are_not_reported_as_a_missing_judge():
    """A client that cannot open a socket says so, and does not tell the user to start a service."""

    class Full(httpx2.AsyncBaseTransport):
        async def handle_async_request(self, _):
            reason = OSError(errno.EMFILE, "Too many open files")
            raise httpx2.ConnectError("All connection attempts failed") from reason

    async def ask():
        async with JudgeClient("http://127.0.0.1:1", retry_for_s=0.01, transport=Full()):
            pass

    with pytest.raises(
        JudgeUnavailable,
        match=r"this machine cannot send a request .* raise the limit \(ulimit -n\)$",
    ):
        asyncio.run(ask())


def test_a_port_that_is_too_large_is_reported_in_one_line():
    with pytest.raises(
        JudgeRefused, match=r"http://h:80000: not a URL \(port 80000 is larger than 65535\)"
    ):
        JudgeClient("http://h:80000")


class Priced(ScriptedJudge):
    """Each pair costs five tokens."""

    async def judge(self, query, candidates):
        cost = Cost(prompt_tokens=5, computed_tokens=5, images=0)
        answers = await super().judge(query, candidates)
        return [
            answer.model_copy(update={"cost": cost}) if isinstance(answer, Verdict) else answer
            for answer in answers
        ]


@pytest.mark.parametrize("explain", [True, False])
def test_the_client_adds_up_the_cost_of_its_verdicts_if_the_caller_needs_it(explain):
    judge = WatchedJudge(Priced(Prompt()), HealthSettings(canary_every_s=0))
    app = create_app(judge, LimitSettings(max_candidates=3))

    async def ask():
        transport = Counting(app)
        async with JudgeClient("http://judge", transport=transport, explain=explain) as client:
            assert client.cost is None
            await client.judge(QUERY, SEVEN)
            answers = await client.judge(QUERY, [*SEVEN[:2], Content(None)])
            await client.choose(QUERY, SEVEN[:2])
            return client.cost, [getattr(answer, "cost", None) for answer in answers]

    cost, of_answers = asyncio.run(ask())
    five = Cost(prompt_tokens=5, computed_tokens=5, images=0)
    assert of_answers == ([five, five, None] if explain else [None] * 3)
    assert cost == (Cost(prompt_tokens=45, computed_tokens=45, images=0) if explain else None)
