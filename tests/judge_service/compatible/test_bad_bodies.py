"""Bad bodies on every compatible route: a 4xx in the client's own words, and the replica still answers."""

import json

import pytest

from judge_service.settings import LimitSettings
from tests.judge_service.compatible.compatible_app import BASE64, app, post, posted
from tests.judge_service.replica.judges import raw

QUESTIONS = [{"type": "predicate", "instructions": "b"}]
GOOD = {
    "/v1/rerank": {"query": "a", "documents": ["b"]},
    "/v2/rerank": {"query": "a", "documents": ["b"]},
    "/rerank": {"query": "a", "texts": ["b"]},
    "/score": {"queries": "a", "documents": ["b"]},
    "/v1/ranking": {"query": {"text": "a"}, "passages": [{"text": "b"}]},
    "/v1/decisions": {"input": "a", "questions": QUESTIONS},
    "/v1/systemone": {"state": "a", "questions": {"q": {"type": "noul", "instructions": "b"}}},
}
MANY = {
    "/v1/rerank": {"documents": ["b"] * 10_001},
    "/v2/rerank": {"documents": ["b"] * 10_001},
    "/rerank": {"texts": ["b"] * 10_001},
    "/score": {"documents": ["b"] * 10_001},
    "/v1/ranking": {"passages": [{"text": "b"}] * 10_001},
    "/v1/decisions": {"questions": QUESTIONS * 10_001},
    "/v1/systemone": {"questions": {str(n): QUESTIONS[0] for n in range(10_001)}},
}


def message_of(answer):
    """The message in the words of a route's clients."""
    error = answer["error"]
    return error["message"] if isinstance(error, dict) else error


@pytest.fixture(params=GOOD)
def path(request):
    """A route, which answers a good request after the bad one."""
    yield request.param
    assert posted(request.param, GOOD[request.param])


@pytest.mark.parametrize(
    ("body", "headers", "status", "message"),
    [
        (b"", {}, 422, "Invalid JSON"),
        (b"null", {}, 422, "body: "),
        (b"[]", {}, 422, "body: "),
        (b"\xff\xfe", {}, 422, "Invalid JSON"),
        (b"[" * 5000, {}, 413, "more fields than the largest request"),
        (b"{}" * 100_000, {}, 413, "the body exceeds 100000 bytes"),
        (b"\x28\xb5\x2f\xfd", {"content-encoding": "zstd"}, 415, "Send the body uncompressed"),
        (b"\x1f\x8b", {"content-encoding": "gzip"}, 415, "Send the body uncompressed"),
        (b"query=a&documents=b", {"content-type": "application/x-www-form-urlencoded"}, 422, "Invalid JSON"),
    ],
)  # fmt: skip
def test_a_body_that_is_not_json(path, body, headers, status, message):
    found, answer = post(path, body, headers)
    assert found == status
    assert message in message_of(answer)


def test_multipart_where_json_is_due(path):
    body = b'--x\r\nContent-Disposition: form-data; name="query"\r\n\r\na\r\n--x--\r\n'
    found, answer = post(path, body, {"content-type": "multipart/form-data; boundary=x"})
    takes_parts = path == "/v1/systemone"
    assert found == (422 if takes_parts else 415)
    cure = "Send the JSON of the request in this part" if takes_parts else "Send application/json"
    assert message_of(answer).endswith(cure)


def test_ten_thousand_and_one_documents(path):
    roomy = app(limits=LimitSettings(max_documents=8, max_body_bytes=10_000_000))
    answer = raw(roomy, GOOD[path] | MANY[path], path=path)
    assert answer.status_code == 413
    assert "Send fewer" in message_of(answer.json())


def test_ten_thousand_and_one_texts_under_the_limit_of_fields():
    roomy = app(limits=LimitSettings(max_documents=1000, max_body_bytes=10_000_000))
    answer = raw(roomy, GOOD["/rerank"] | MANY["/rerank"], path="/rerank")
    assert answer.status_code == 413
    assert (
        answer.json()["error"] == "10001 documents: a request may have 1000. Send fewer documents"
    )


def test_an_image_of_40_mb(path):
    url = "data:image/png;base64," + "A" * 40_000_000
    content = [{"type": "image_url", "image_url": url}]
    shapes = {
        "/v1/rerank": {"query": content},
        "/v2/rerank": {"query": content},
        "/rerank": {"query": content},
        "/score": {"queries": {"content": content}},
        "/v1/ranking": {"query": {"image": url}},
        "/v1/decisions": {"input": [{"role": "user", "content": content}]},
        "/v1/systemone": {"assets": {"a": {"type": "image", "data_base64": url}}},
    }
    answer = raw(app(limits=LimitSettings()), GOOD[path] | shapes[path], path=path)
    assert answer.status_code == 413
    assert "the body exceeds" in message_of(answer.json())


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999"])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/rerank", '{"query": "a", "documents": [{"text": "b", "x": %s}], "return_documents": true}'),
        ("/v1/systemone", '{"state": "a", "questions": {"q": {"type": "score", "criteria": ["b", {"x": %s}]}}}'),
        ("/rerank", '{"query": "a", "texts": [{"text": "b", "x": %s}], "return_text": true}'),
    ],
)  # fmt: skip
def test_a_number_that_json_does_not_have_is_not_repeated(path, body, number):
    found, answer = post(path, (body % number).encode())
    assert found == 422
    assert "a number is NaN or infinite" in message_of(answer)


@pytest.mark.parametrize("top_n", [0, 1, 10**9])
def test_top_n_of_any_size(top_n):
    answer = posted("/v1/rerank", {"query": "a", "documents": ["b", "c"], "top_n": top_n})
    assert len(answer["results"]) == min(top_n or 2, 2)


@pytest.mark.parametrize("top_n", ["-1", "NaN", "1e9", "10000000000000000000000.5", "[1]"])
def test_top_n_that_is_no_number_of_documents(top_n):
    body = f'{{"query": "a", "documents": ["b"], "top_n": {top_n}}}'
    found, answer = post("/v2/rerank", body.encode())
    assert found == 422
    assert message_of(answer).startswith("top_n: ")


def test_duplicates_are_judged_each_at_its_place():
    documents = ["b", {"text": "b"}, {"image": BASE64}, {"image": BASE64}]
    results = posted("/v1/rerank", {"query": "a", "documents": documents})["results"]
    scores = {result["index"]: result["relevance_score"] for result in results}
    assert scores[0] == scores[1]
    assert scores[2] == scores[3]


def test_both_documents_and_texts():
    found, answer = post("/rerank", {"query": "a", "documents": ["b"], "texts": ["b"]})
    assert found == 422
    assert "send either documents or texts" in json.dumps(answer)
