"""Published clients of other servers order documents by the judge. They run in an environment of their own."""

import asyncio
import contextlib
import json
import subprocess
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import uvicorn

from judge_service.backends.scripted import ScriptedJudge
from judge_service.front.auth import digest_of
from judge_service.settings import FrontSettings, LimitSettings
from tests.judge_service.compatible.compatible_app import BASE64, DATA_URL, PICTURE, app
from unijudge.content import Content
from unijudge.judging.prompt import Prompt

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv" / "clients" / "bin" / "python"
KEY = "a-secret"
DOCUMENTS = ["a cat", "a dog", "a red fox", "two cats", "rain"]
LIMIT_S = 120
HELD_S = 900
HELD = "a query that is never answered"

pytestmark = pytest.mark.skipif(
    not PYTHON.exists(),
    reason="the environment of the clients is missing: run `make .venv/clients/ready`",
)


@contextlib.contextmanager
def serving(application):
    """The URL of an application on a free port of this machine."""
    config = uvicorn.Config(application, port=0, log_level="critical")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    limit = time.monotonic() + LIMIT_S
    while not server.started and time.monotonic() < limit:
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = server.force_exit = True
        thread.join(LIMIT_S)


@pytest.fixture(scope="module")
def url():
    with serving(app(limits=LimitSettings(), keys=[digest_of(KEY)])) as address:
        yield address


@pytest.fixture(scope="module")
def busy_url():
    """The URL of a service whose only slot and only waiting place are taken."""
    front = FrontSettings(max_ongoing_requests=1, max_queued_requests=1)
    application = app(Held(Prompt()), keys=[digest_of(KEY)], front=front)
    with serving(application) as address:
        occupied = [threading.Thread(target=occupy, args=(address,), daemon=True) for _ in range(2)]
        for thread in occupied:
            thread.start()
        limit = time.monotonic() + LIMIT_S
        while status_of(address, 0.1) != 429 and time.monotonic() < limit:
            time.sleep(0.05)
        yield address


class Held(ScriptedJudge):
    """A judge that never answers the query that occupies the slots."""

    async def judge(self, query, candidates):
        if query.text == HELD:
            await asyncio.sleep(HELD_S)
        return await super().judge(query, candidates)


def occupy(address):
    """Sends a request that occupies a slot, and keeps the slot."""
    with contextlib.suppress(OSError):
        while status_of(address, HELD_S) == 429:
            time.sleep(0.05)


def status_of(address, patience_s):
    body = json.dumps({"query": HELD, "documents": ["b"]}).encode()
    headers = {"Authorization": f"Bearer {KEY}", "Judge-Timeout": str(patience_s)}
    request = urllib.request.Request(f"{address}/v1/rerank", body, headers)  # noqa: S310
    try:
        return urllib.request.urlopen(request, timeout=HELD_S).status  # noqa: S310
    except urllib.error.HTTPError as error:
        return error.code


def run(script, *words):
    done = subprocess.run(
        [PYTHON, ROOT / "tests" / "clients" / "scripts" / script, *words],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


QUERY = Content("a cat")


def scores(*contents, query=QUERY):
    judge = ScriptedJudge(Prompt())
    verdicts = asyncio.run(judge.judge(query, contents))
    return [verdict.score for verdict in verdicts]


@pytest.fixture(scope="module")
def best_first():
    """The index and the score of each document, the best first."""
    found = scores(*map(Content, DOCUMENTS))
    return sorted(([i, score] for i, score in enumerate(found)), key=lambda pair: -pair[1])


def test_cohere(url, busy_url, best_first):
    found = run("order_with_cohere.py", url, busy_url, KEY, json.dumps(DOCUMENTS))
    assert found["v2"] == best_first[:3]
    assert found["v1"] == best_first
    assert found["texts"] == [DOCUMENTS[index] for index, _ in best_first]
    assert found["tokens"] == 0
    assert found["unprocessable"][:2] == ["UnprocessableEntityError", 422]
    assert "query: neither text nor image" in found["unprocessable"][2]
    assert found["busy"][:2] == ["TooManyRequestsError", 429]


def test_openai(url, busy_url):
    words = (url, busy_url, KEY, json.dumps(DOCUMENTS), DATA_URL)
    found = run("decide_with_openai.py", *words)
    assert found["predicates"] == scores(*map(Content, DOCUMENTS), Content(image=PICTURE))
    assert found["names"] == [None] * len(DOCUMENTS) + ["picture", None, None]
    assert found["choice"] in ("cat", True)
    assert 0 < found["score"] < 1
    assert found["models"] == ["scripted"]
    assert found["broken"] == "refusal"
    assert found["unprocessable"][:2] == ["UnprocessableEntityError", 422]
    assert "questions: List should have at least 1 item" in found["unprocessable"][2]
    assert found["busy"][:2] == ["RateLimitError", 429]


def test_typesafe(url, busy_url):
    found = run("ask_with_typesafe.py", url, busy_url, KEY, json.dumps(DOCUMENTS), BASE64)
    assert found["nouls"] == scores(*map(Content, DOCUMENTS), Content(image=PICTURE))
    seen = Content("a cat", PICTURE)
    assert [found["picture_in_state"]] == scores(Content("two cats"), query=seen)
    assert found["choice"] in ("cat", "photo")
    assert 0 < found["score"] < 1
    assert found["legend"] == {"0": "bad", "1": "good"}
    assert found["models"] == ["scripted"]
    assert found["box"][:2] == ["TypeSafeUnprocessableEntityError", 422]
    assert "questions.a: Input tag 'box'" in found["box"][2]
    assert found["broken"][:2] == ["TypeSafeUnprocessableEntityError", 422]
    assert "questions.a: " in found["broken"][2]
    assert found["busy"][:2] == ["TypeSafeRateLimitError", 429]


def test_rerankers(url, busy_url, best_first):
    found = run("order_with_rerankers.py", url, busy_url, KEY, json.dumps(DOCUMENTS))
    for provider in ("cohere", "jina", "text-embeddings-inference"):
        assert found[provider] == best_first
    assert found["unprocessable"]
    assert found["busy"]
