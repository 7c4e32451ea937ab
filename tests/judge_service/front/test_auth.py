"""Keys: every route except the probes is denied by default, in any form of the request."""

import asyncio

import httpx2
import pytest

from judge_service.backends.scripted import ScriptedJudge
from judge_service.front.auth import digest_of, new_key
from judge_service.replica.app import create_app
from judge_service.replica.health import WatchedJudge
from judge_service.settings import HealthSettings, LimitSettings, ServiceSettings
from unijudge.client.client import JudgeClient
from unijudge.client.keys import read_key
from unijudge.content import Content
from unijudge.errors import DataError, JudgeError, SettingsError
from unijudge.judging.prompt import Prompt
from unijudge.settings import load_settings

KEY, DIGEST = new_key()
OTHER, OTHER_DIGEST = new_key()
BODY = b'{"query": {"text": "a"}, "candidates": [{"text": "b"}]}'


@pytest.fixture
def app():
    judge = WatchedJudge(ScriptedJudge(Prompt()), HealthSettings(canary_every_s=0))
    return create_app(judge, LimitSettings(), (DIGEST, OTHER_DIGEST.upper()))


def ask(app, method, path, headers=(), body=None):
    async def call():
        async with httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app), base_url="http://judge"
        ) as http:
            return await http.request(method, path, headers=dict(headers), content=body)

    return asyncio.run(call())


@pytest.mark.parametrize(
    "header",
    [
        None, "", "Bearer", "Bearer ", f"Bearer {KEY[:-1]}", f"Bearer {KEY}x", f"Bearer {KEY.upper()}", KEY,
        f"Basic {KEY}", f"Bearer {DIGEST}", f"Bearer  {KEY}", f"Bearer {KEY} ,", "Bearer " + "x" * 5000,
    ],
    ids=range(13),  # keys are random, so they cannot be names of tests
)  # fmt: skip
def test_requests_without_a_valid_key_are_refused(app, header):
    answer = ask(
        app, "POST", "/v1/score", {"Authorization": header} if header is not None else {}, BODY
    )
    assert answer.status_code == 401
    assert answer.json()["code"] == "no_key"
    assert KEY not in answer.text


def test_each_of_two_keys_is_accepted(app):
    for key, scheme in [(KEY, "Bearer"), (OTHER, "bearer")]:
        assert (
            ask(app, "POST", "/v1/score", {"Authorization": f"{scheme} {key}"}, BODY).status_code
            == 200
        )


def test_every_route_except_the_probes_needs_a_key(app):
    paths = {route.path for route in app.routes} | {
        "//v1/score", "/v1//score", "/healthz/", "/healthz/../v1/identity", "/%2e/v1/identity", "/HEALTHZ", "/nowhere",
        "/v1/identity?x=/healthz", "/v1/identity;/healthz",
    }  # fmt: skip
    assert {"/v1/score", "/v1/identity", "/docs", "/openapi.json"} <= paths
    for path in sorted(paths - {"/healthz", "/readyz"}):
        for method in ("GET", "POST", "OPTIONS", "HEAD"):
            for headers in ({}, {"Host": "judge/healthz"}, {"Host": "judge?/healthz"}):
                assert ask(app, method, path, headers).status_code == 401, (method, path, headers)
    assert ask(app, "GET", "/healthz").status_code == 200
    assert ask(app, "GET", "/readyz").status_code == 200


def test_the_client_sends_its_key(app):
    async def judge(key):
        async with JudgeClient(
            "http://judge", key=key, transport=httpx2.ASGITransport(app)
        ) as client:
            return await client.judge(Content(text="a"), [Content(text="b")])

    assert len(asyncio.run(judge(KEY))) == 1
    with pytest.raises(
        JudgeError, match=r"401: this service requires a key.*Check the URL and the key"
    ):
        asyncio.run(judge(None))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("uj-ключ", "has characters that no key has"),
        (" \n", "is blank"),
        ("a\nb", "has characters"),
    ],
)
def test_an_invalid_key_is_refused_before_any_request(tmp_path, text, fault):
    (tmp_path / "key").write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError, match=f"key: the key {fault}.*unijudge judge key") as caught:
        read_key(tmp_path / "key")
    assert text.strip() not in str(caught.value) or not text.strip()
    with pytest.raises(SettingsError, match=f"key: the key {fault}"):
        JudgeClient("http://judge", key=text)


def test_a_key_is_read_from_its_file(tmp_path):
    (tmp_path / "key").write_text("uj-1\n")
    assert read_key(tmp_path / "key") == "uj-1"
    assert read_key(None) is None
    with pytest.raises(DataError, match="nowhere: cannot be read"):
        read_key(tmp_path / "nowhere")


def test_a_key_in_the_place_of_its_digest_is_refused():
    made = load_settings(ServiceSettings, None, [f'key_sha256=["{digest_of("x")}"]'])
    assert made.key_sha256 == (digest_of("x"),)
    with pytest.raises(Exception, match="key_sha256"):
        load_settings(ServiceSettings, None, [f'key_sha256=["{KEY}"]'])
