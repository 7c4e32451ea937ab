"""POST /v1/count: the number of tokens that the judge runs, errors at their positions, and the same errors as for
scoring.
"""

import asyncio
import json

import httpx2
import pytest

from judge_service.backends.scripted import ScriptedJudge
from judge_service.front.blobs import BlobStore
from judge_service.replica.app import create_app
from judge_service.replica.counting import counter_of
from judge_service.replica.health import WatchedJudge
from judge_service.settings import HealthSettings, LimitSettings
from tests.contents import CONTENTS
from tests.families import MAKERS
from tests.judge_service.replica.judges import Counting
from tests.judge_service.replica.loaded import load
from tests.pictures import noise, png
from unijudge.client.client import JudgeClient
from unijudge.content import Content
from unijudge.errors import JudgeChanged, JudgeRefused, JudgeUncounted
from unijudge.judging.flops import TokenCount
from unijudge.judging.prompt import Prompt
from unijudge.judging.verdicts import PairError

HEALTH = HealthSettings(canary_every_s=0, min_label_mass=0)
TEXTS = [Content(text=f"number {number}") for number in range(7)]
PHOTO = Content(text="a cat", image=png("red", (60, 60)))


@pytest.fixture(scope="module")
def judge(tiny_model):
    return load(tiny_model)


@pytest.fixture(scope="module")
def app(judge):
    return serve(judge)


def serve(judge, blobs=None, **limits):
    watched = WatchedJudge(judge, HEALTH)
    return create_app(
        watched, LimitSettings(**limits), blobs=blobs, counter=counter_of(judge), replicas=3
    )


async def count(transport, query, candidates):
    async with JudgeClient("http://judge", transport=transport, retry_for_s=5) as client:
        return await client.count(query, candidates), client.info


def counts_and_info(app, query, candidates):
    """Returns (counts, info)."""
    return asyncio.run(count(Counting(app), query, candidates))


def raw(app, body, headers=()):
    async def call():
        async with httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app), base_url="http://judge"
        ) as http:
            return await http.post(
                "/v1/count", content=json.dumps(body).encode(), headers=dict(headers)
            )

    return asyncio.run(call())


def watch(judge, monkeypatch):
    """Records what a transformers judge runs: the lengths of the rows of each forward pass, its prefix, and the cached
    tokens.
    """
    runs = []
    forward = judge._forward

    def seen(streams, cut, cache):
        lengths = judge._inputs.model.token_arrays(streams)["attention_mask"].sum(1).tolist()
        hidden_BD = forward(streams, cut, cache)
        runs.append((lengths, cut, cache.get_seq_length() if cache is not None else 0))
        return hidden_BD

    monkeypatch.setattr(judge, "_forward", seen)
    return runs


@pytest.mark.parametrize("order", ["query_first", "candidate_first"])
@pytest.mark.parametrize(
    "query", [CONTENTS[0], CONTENTS[6], CONTENTS[-1]], ids=["text", "picture", "both"]
)
def test_the_tokens_are_those_that_the_judge_runs(tiny_model, monkeypatch, order, query):
    """Compares the whole prompts and the shared prefix of 16 mixed candidates with the tokens of the forward passes."""
    judge = load(tiny_model, prompt=Prompt(order=order))
    runs = watch(judge, monkeypatch)
    asyncio.run(judge.judge(query, CONTENTS))
    counts, _ = counts_and_info(serve(judge), query, CONTENTS)
    ((prefix,), _, cached), *rest = runs
    assert [c.tokens for c in counts] == [length for lengths, *_ in rest for length in lengths]
    assert {c.shared_tokens for c in counts} == {prefix} == {cached}


def test_a_candidate_alone_shares_nothing(judge, app, monkeypatch):
    runs = watch(judge, monkeypatch)
    asyncio.run(judge.judge(PHOTO, [TEXTS[0]]))
    ((found,), _) = counts_and_info(app, PHOTO, [TEXTS[0]])
    assert [lengths for lengths, *_ in runs] == [[found.tokens]]
    assert found.shared_tokens == 0


def test_pictures_are_counted_as_the_tower_makes_them(judge, app):
    """60 × 60 pixels become 2 × 2 tokens of 28 × 28 pixels.

    80 × 200 pixels shrink by √(16000 / 12544) = 1.13 to 71 × 177 pixels, which are 2 × 6 tokens.
    """
    wide = Content(image=png("blue", (200, 80)))
    counts, _ = counts_and_info(app, PHOTO, [wide, TEXTS[0], PHOTO])
    assert [c.query_image_tokens for c in counts] == [4, 4, 4]
    assert [c.candidate_image_tokens for c in counts] == [12, 0, 4]
    for content, tokens in [(PHOTO, 4), (wide, 12)]:
        stream = judge._inputs.renderer.streams(content, TEXTS[:1])
        (grid,) = judge._inputs.model.picture_arrays(stream)["image_grid_thw"]
        assert grid.prod() // 4 == tokens


@pytest.mark.parametrize("family", ["qwen3_vl", "llava_next", "internvl"])
def test_every_family_counts_tokens_and_some_have_a_cost(family, tmp_path, monkeypatch):
    MAKERS[family](tmp_path)
    labels = {"yes": "Y", "no": "N"} if family == "llava_next" else {}
    judge = load(tmp_path, prompt=Prompt(**labels), max_tokens=2048)
    runs = watch(judge, monkeypatch)
    asyncio.run(judge.judge(PHOTO, CONTENTS))
    counts, info = counts_and_info(serve(judge), PHOTO, CONTENTS)
    assert [c.tokens for c in counts] == [length for lengths, *_ in runs[1:] for length in lengths]
    assert (info.shape is None) == (not family.startswith("qwen"))


def test_a_query_is_split_as_in_scoring(judge):
    app = serve(judge, max_candidates=3)
    transport = Counting(app)
    counts, info = asyncio.run(count(transport, PHOTO, TEXTS))
    assert [c.tokens for c in counts] == [
        c.tokens for c in counts_and_info(serve(judge), PHOTO, TEXTS)[0]
    ]
    assert [request.url.path for request in transport.seen] == ["/v1/identity", *["/v1/count"] * 3]
    assert [bool(c.shared_tokens) for c in counts] == [True] * 6 + [
        False
    ]  # the seventh candidate was alone in its request
    assert info.shape.vision.patches_per_token == 4
    assert info.replicas == 3


def test_an_error_has_its_position_as_in_scoring(judge, app):
    candidates = [TEXTS[0], Content(image=b"junk"), Content(text="word " * 900), TEXTS[1]]
    counts, _ = counts_and_info(app, PHOTO, candidates)
    answers = asyncio.run(judge.judge(PHOTO, candidates))
    assert [type(c) for c in counts] == [TokenCount, PairError, PairError, TokenCount]
    assert counts[1:3] == answers[1:3]
    assert [c.code for c in counts[1:3]] == ["bad_image", "too_long"]
    with pytest.raises(JudgeRefused, match="422: query: not a JPEG"):
        counts_and_info(app, Content(image=b"junk"), TEXTS)
    small = serve(judge, max_body_bytes=5000)
    counts, _ = counts_and_info(small, TEXTS[0], [TEXTS[1], Content(text="x" * 9000)])
    assert counts[1].code == "too_large"


def test_images_are_sent_once_for_counts_and_verdicts(judge, tmp_path):
    pictures = [Content(image=noise(seed)) for seed in range(3)]
    transport = Counting(serve(judge, BlobStore(tmp_path, max_bytes=10**6)))

    async def both():
        async with JudgeClient("http://judge", transport=transport, retry_for_s=5) as client:
            counts = await client.count(pictures[0], pictures)
            return counts, await client.judge(pictures[0], pictures)

    counts, verdicts = asyncio.run(both())
    assert len(counts) == len(verdicts) == 3
    assert sum(request.method == "PUT" for request in transport.seen) == 3
    assert counts == counts_and_info(serve(judge), pictures[0], pictures)[0]


BODY = {"query": {"text": "a"}, "candidates": [{"text": "b"}]}


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (BODY, {"If-Match": '"0123"'}, 412, "other_judge"),
        ({"query": {"text": "a"}, "candidates": []}, {}, 400, "bad_request"),
        ({"query": {"text": "a"}, "candidates": [{"text": "b"}] * 65}, {}, 413, "too_large"),
        ({"query": {"text": "a"}, "candidates": [{"image_sha256": "0" * 64}]}, {}, 400, "no_blobs"),
    ],
)
def test_requests_that_scoring_refuses_are_refused(app, body, headers, status, code):
    answer = raw(app, body, headers)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_an_answer_has_the_identity_of_the_counting_judge(app, judge):
    answer = raw(app, BODY)
    assert answer.status_code == 200
    assert answer.headers["ETag"] == f'"{judge.identity.digest}"'
    assert answer.json()["identity"] == judge.identity.model_dump()


def test_a_judge_without_tokens_is_reported(identity):
    scripted = ScriptedJudge(Prompt())
    assert counter_of(scripted) is None
    app = serve(scripted)
    answer = raw(app, BODY)
    assert (answer.status_code, answer.json()["code"]) == (404, "no_tokens")
    transport = Counting(app)
    with pytest.raises(
        JudgeUncounted,
        match=r"404: scripted .* the judge has no tokens to count. Use a service that runs",
    ):
        asyncio.run(count(transport, TEXTS[0], TEXTS))
    assert len(transport.seen) == 2  # no further request
    assert raw(app, BODY, {"If-Match": f'"{identity.digest}"'}).status_code == 412


def test_the_shape_is_known_before_anything_is_counted(judge):
    async def entered(app):
        async with JudgeClient("http://judge", transport=Counting(app)) as client:
            return client.info.shape

    assert asyncio.run(entered(serve(judge))) == counter_of(judge).shape
    assert asyncio.run(entered(serve(ScriptedJudge(Prompt())))) is None, "it has no tokens"


def test_another_judge_is_noticed_while_counting(judge, tiny_model):
    other = serve(load(tiny_model, prompt=Prompt(instruction="?")))

    class Changing(Counting):
        async def handle_async_request(self, request):
            if request.method == "POST":
                return await Counting(other).handle_async_request(request)
            return await super().handle_async_request(request)

    with pytest.raises(JudgeChanged, match="412"):
        asyncio.run(count(Changing(serve(judge)), TEXTS[0], TEXTS))


def test_every_reference_of_the_openapi_document_exists(app):
    """Every reference of the OpenAPI document exists, and all routes describe a question in the same way."""
    document = app.openapi()

    def references(node):
        if isinstance(node, dict):
            yield from ([node["$ref"]] if "$ref" in node else [])
            node = list(node.values())
        if isinstance(node, list):
            for child in node:
                yield from references(child)

    found = set(references(document))
    bodies = ("ScoreRequest", "ScoreResponse", "ChooseResponse", "CountResponse", "ListVerdict")
    assert {f"#/components/schemas/{name}" for name in bodies} <= found
    for reference in found:
        place = document
        for name in reference.removeprefix("#/").split("/"):
            place = place[name]
    paths = ("/v1/score", "/v1/choose", "/v1/count")
    first, *others = (document["paths"][path]["post"]["requestBody"] for path in paths)
    assert others == [first, first]
