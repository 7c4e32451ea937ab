"""The HTTP application and its client in one process: requests, answers and errors."""

import asyncio
import base64
import contextlib
import time
from collections import Counter

import httpx2
import pytest

from judge_service.backends.scripted import ScriptedJudge
from judge_service.replica.app import create_app
from judge_service.replica.health import WatchedJudge
from judge_service.settings import HealthSettings, LimitSettings
from tests.judge_service.replica.judges import Answering, Counting, raw, run
from tests.pictures import png
from unijudge.client.client import JudgeClient, judge_now
from unijudge.content import Content
from unijudge.errors import JudgeBroken, JudgeChanged, JudgeRefused, JudgeUnavailable
from unijudge.judging.prompt import Prompt
from unijudge.judging.verdicts import PairError, Verdict

LIMITS = LimitSettings(max_candidates=3, max_body_bytes=20_000, max_pixels=10_000)
CAT = Content(text="a cat")


@pytest.fixture
def judge():
    return WatchedJudge(
        ScriptedJudge(Prompt()),
        HealthSettings(canary_every_s=0, liveness_window_s=0.01, timeout_s=0.2),
    )


@pytest.fixture
def app(judge):
    return create_app(judge, LIMITS)


def client(app, **options):
    options = {"transport": Counting(app, options.pop("spoil", ())), "retry_for_s": 5} | options
    return JudgeClient("http://judge", **options)


async def ask(app, query, candidates, **options):
    async with client(app, **options) as judge:
        return await judge.judge(query, candidates)


def test_the_client_is_a_judge(app, judge):
    candidates = [Content(text=f"candidate {i}", image=png() if i % 2 else None) for i in range(8)]
    direct = run(judge.judge(CAT, candidates))
    assert run(ask(app, CAT, candidates)) == direct
    assert all(isinstance(answer, Verdict) and 0.999 < answer.mass <= 1.001 for answer in direct)


def test_large_queries_are_split_by_count_and_by_bytes(app):
    async def requests(candidates):
        async with client(app) as judge:
            answers = await judge.judge(CAT, candidates)
            assert len(answers) == len(candidates)
            return [r for r in judge._connection._http._transport.seen if r.method == "POST"]

    assert len(run(requests([CAT] * 7))) == 3
    sent = run(requests([Content(text="x" * 7000)] * 3))
    assert len(sent) == 2
    assert all(len(request.content) < LIMITS.max_body_bytes for request in sent)


def test_a_bad_candidate_gets_an_error_at_its_position(app):
    answers = run(ask(app, CAT, [CAT, Content(image=b"not an image"), CAT]))
    assert isinstance(answers[1], PairError)
    assert answers[1].code == "bad_image"
    assert answers[0] == answers[2]
    assert isinstance(answers[0], Verdict)


def test_a_candidate_too_large_for_any_request_gets_an_error(app):
    answers = run(ask(app, CAT, [CAT, Content(text="x" * 30_000), CAT]))
    assert [type(answer) for answer in answers] == [Verdict, PairError, Verdict]
    assert answers[1].code == "too_large"
    with pytest.raises(JudgeRefused, match="the query is larger than a request may be"):
        run(ask(app, Content(text="x" * 30_000), [CAT]))


def test_a_bad_query_refuses_the_request(app):
    with pytest.raises(JudgeRefused, match="422: query: not a JPEG"):
        run(ask(app, Content(image=b"nothing"), [CAT]))


def test_pairs_are_not_scored_by_another_judge(app, identity):
    with pytest.raises(
        JudgeChanged, match=r"expected test.*but scripted.*model is 'scripted', not 'test'"
    ):
        run(ask(app, CAT, [CAT], expect=identity))
    answer = raw(
        app, {"query": {"text": "a"}, "candidates": [{"text": "b"}]}, {"If-Match": '"0123"'}
    )
    assert answer.status_code == 412
    assert answer.json()["code"] == "other_judge"
    assert "results" not in answer.json()


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"", 400, "body: Invalid JSON"),
        (b"{", 400, "body: Invalid JSON"),
        (b"\xff\xfe", 400, "body"),
        ({}, 400, "query: Field required"),
        ({"query": {}, "candidates": [{"text": "b"}]}, 422, "query: neither text nor image"),
        (
            {"query": {"text": "a"}, "candidates": []},
            400,
            "candidates: List should have at least 1",
        ),
        (
            {"query": {"text": "a"}, "candidates": [{"text": "b"}], "typo": 1},
            400,
            "typo: Extra inputs",
        ),
        (
            {"query": {"text": "a"}, "candidates": [{"image": "http://x/y.png"}]},
            400,
            "URLs and paths are never opened",
        ),
        (
            {"query": {"text": "a"}, "candidates": [{"image": "/etc/passwd.png"}]},
            400,
            "never opened",
        ),
        (
            {"query": {"text": "a"}, "candidates": [{"text": "b"}] * 4},
            413,
            "4 candidates: a request may have 3",
        ),
        (
            {"query": {"text": "a" * 30_000}, "candidates": [{"text": "b"}]},
            413,
            "exceeds 20000 bytes",
        ),
        (b"[" * 19_000, 413, "more fields than the largest request"),
    ],
)
def test_a_bad_request_is_refused_with_its_reason(app, body, status, reason):
    answer = raw(app, body)
    assert answer.status_code == status
    assert reason in answer.json()["message"]


def test_no_request_makes_the_service_open_a_file_or_a_url(app):
    """For any request of a client, Python reports no audit event of opening a file or a connection while the answer is
    made.
    """
    import sys

    opened = []
    watching = True

    def watch(event, arguments):
        if watching and event in {"socket.connect", "socket.getaddrinfo", "urllib.Request"}:
            opened.append((event, arguments))
        if watching and event == "open" and "secret" in str(arguments[0]):
            opened.append((event, arguments))

    sys.addaudithook(watch)
    secret = base64.b64encode(b"file:///secret").decode()
    for image in (
        "secret.png",
        "file:///secret",
        "http://127.0.0.1:1/secret",
        secret,
        "\\\\host\\secret",
    ):
        raw(app, {"query": {"text": image}, "candidates": [{"text": image}, {"image": secret}]})
        raw(app, {"query": {"image": image}, "candidates": [{"text": "b"}]})
    watching = False
    assert not opened


def test_retryable_errors_are_retried(app):
    busy = httpx2.Response(503, headers={"Retry-After": "0"})
    answers = run(
        ask(app, CAT, [CAT], spoil=[busy, httpx2.ReadError("reset"), httpx2.Response(429)])
    )
    assert isinstance(answers[0], Verdict)


def test_other_errors_are_not_retried(app):
    async def refused():
        async with client(app, spoil=[httpx2.Response(400, text="no")]) as judge:
            with contextlib.suppress(JudgeRefused):
                await judge.judge(CAT, [CAT])
            return len([r for r in judge._connection._http._transport.seen if r.method == "POST"])

    assert run(refused()) == 1


def test_an_invalid_answer_stops_the_client(app):
    with pytest.raises(JudgeBroken, match="the answer is not a score response"):
        run(ask(app, CAT, [CAT], spoil=[httpx2.Response(200, json={"scores": [1]})]))


def test_too_few_answers_stop_the_client(app, judge):
    short = {"identity": judge.identity.model_dump(), "results": []}
    with pytest.raises(JudgeBroken, match="1 candidates sent, 0 answers returned"):
        run(ask(app, CAT, [CAT], spoil=[httpx2.Response(200, json=short)]))


def test_a_missing_service_is_reported():
    async def nobody():
        async with JudgeClient("http://127.0.0.1:9", retry_for_s=0):
            pass

    with pytest.raises(
        JudgeUnavailable, match=r"127\.0\.0\.1:9: no judge answers there.*unijudge judge serve"
    ):
        run(nobody())
    for url in ("nonsense", "http://host:80a", "ftp://host"):
        with pytest.raises(JudgeRefused, match="not a URL"):
            judge_now(url, CAT, [CAT])


def test_ready_means_that_a_pair_was_scored_lately(app, judge):
    """A judge with a hung engine is not ready, although its process answers.

    The judge is ready again when it scores. No probe waits.
    """
    inner = judge._judge

    class Hung:
        identity = inner.identity

        async def judge(self, query, candidates):
            await asyncio.sleep(60)

    async def states():
        found = []
        async with (
            app.router.lifespan_context(None),
            httpx2.AsyncClient(
                transport=httpx2.ASGITransport(app), base_url="http://judge"
            ) as http,
        ):
            for engine, status in ((inner, 200), (Hung(), 503), (inner, 200)):
                judge._judge = engine
                async with asyncio.timeout(30):
                    while (answer := await http.get("/readyz")).status_code != status:  # noqa: ASYNC110
                        await asyncio.sleep(0.01)
                found.append(answer)
            found.append(await http.get("/healthz"))
        return found

    _, hung, _, alive = run(states())
    assert alive.status_code == 200
    assert "the engine hangs" in hung.json()["message"]
    assert hung.headers["Retry-After"]


class Slow:
    """A judge that finishes one pair in a hundredth of a second, also for clients that have left, and that never
    finishes a known pair.
    """

    def __init__(self, identity):
        self.identity = identity

    @property
    def progressed_at(self):
        return time.monotonic()

    async def judge(self, query, candidates):
        await asyncio.sleep(60)


def test_a_judge_that_works_on_other_requests_is_not_dead(identity):
    watched = WatchedJudge(
        Slow(identity), HealthSettings(liveness_window_s=1e-9, timeout_s=0.01, canary_every_s=0.01)
    )
    run(watched.check_ready())
    watched.check_well()


@pytest.mark.parametrize(
    ("match", "other", "reason"),
    [
        ((0.9, 0.05), (0.05, 0.9), None),
        ((0.2, 0.7), (0.3, 0.6), "cannot tell a match from a mismatch"),
        (
            (0.02, 0.01),
            (0.01, 0.02),
            "Yes and No together have a mean probability of 0.03 on known pairs",
        ),
    ],
)
def test_a_judge_that_does_not_fit_does_not_start(identity, match, other, reason):
    watched = WatchedJudge(Answering(identity, match, other), HealthSettings())

    async def start():
        async with create_app(watched, LIMITS).router.lifespan_context(None):
            return True

    if reason is None:
        assert run(start())
    else:
        with pytest.raises(JudgeBroken, match=reason):
            run(start())


def test_a_refusal_leaves_no_traceback_in_the_log(app, caplog):
    """The client gets an error about its request. A traceback in the log would mean a bug of unijudge."""
    caplog.set_level("DEBUG")
    text, picture = {"text": "a"}, {"image": base64.b64encode(png()[:50]).decode()}
    large = {"image": base64.b64encode(png(size=(200, 200))).decode()}
    bodies = [
        b"", b"{", b"[]", b"\xff\xfe", b'{"query": {"text": "\\ud800"}}', b"[" * 9000, b"{}" * 30_000,
        {"query": text}, {"query": text, "candidates": []}, {"query": text, "candidates": [text] * 4},
        {"query": {"image": "no base64"}, "candidates": [text]}, {"query": text, "candidates": [{"image": "0" * 64}]},
        {"query": {}, "candidates": [text]}, {"query": {"text": 7}, "candidates": "b"},
    ]  # fmt: skip
    answers = [
        raw(app, body, headers) for body in bodies for headers in ((), [("If-Match", '"0"')])
    ]
    answers += [
        raw(app, b"x", path=path)
        for path in ("/", "/v1/choose", "/v1/count", "/v1/nothing", "/v1/blobs/0")
    ]
    # This candidate is an error of its pair.
    whole = [raw(app, {"query": text, "candidates": [one]}) for one in (picture, large)]
    # This pair is empty.
    assert Counter(answer.status_code // 100 for answer in answers) == {4: len(answers) - 1, 2: 1}
    assert [answer.status_code for answer in whole] == [200, 200]
    assert [
        record
        for record in caplog.records
        if record.exc_info or record.levelname in ("ERROR", "CRITICAL")
    ] == []


def test_a_bug_in_the_service_becomes_an_error_body(app, judge, monkeypatch):
    async def broken(query, candidates):
        raise RuntimeError("secret detail")

    monkeypatch.setattr(judge, "judge", broken)
    answer = raw(app, {"query": {"text": "a"}, "candidates": [{"text": "b"}]})
    assert answer.status_code == 500
    assert answer.json()["code"] == "internal"
    assert "secret" not in answer.text


def test_an_answer_has_its_cost_only_if_the_client_requests_the_cost(app):
    """The scripted judge computes nothing.

    The tests in `tests/judge_service/backends` check the costs of the real judges.
    """
    body = {"query": {"text": "a"}, "candidates": [{"text": "b"}]}
    for path in ("/v1/score", "/v1/choose"):
        plain = raw(app, body, path=path).json()
        assert raw(app, body | {"explain": True}, path=path).json() == plain
    assert raw(app, body | {"explain": "maybe"}).status_code == 400
