"""POST /score of vLLM, POST /v1/ranking of NVIDIA NIM, and GET /v1/models."""

import httpx2
import pytest

from tests.judge_service.compatible.compatible_app import (
    DATA_URL,
    JUDGE,
    PICTURE,
    app,
    picture_part,
    post,
    posted,
    text,
    verdicts,
)
from tests.judge_service.replica.judges import run
from unijudge.content import Content


@pytest.mark.parametrize(
    ("left", "right"),
    [("queries", "documents"), ("queries", "items"), ("data_1", "data_2"), ("text_1", "text_2")],
)
def test_one_query_and_many_documents(left, right):
    answer = posted("/score", {left: "a cat", right: ["a cat", "a dog"]})
    scores = [verdict.score for verdict in verdicts(text("a cat"), text("a cat"), text("a dog"))]
    assert answer["data"] == [
        {"index": index, "object": "score", "score": score} for index, score in enumerate(scores)
    ]
    assert answer["object"] == "list"


def test_many_queries_each_with_its_document():
    queries = ["a", "b", "a", "b"]
    documents = ["c", "d", "e", {"content": [picture_part()]}]
    answer = posted("/score", {"queries": queries, "documents": documents})
    contents = [text("c"), text("d"), text("e"), Content(image=PICTURE)]
    expected = [
        verdicts(text(query), content)[0].score
        for query, content in zip(queries, contents, strict=True)
    ]
    assert [row["score"] for row in answer["data"]] == expected


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"queries": "a"}, "send exactly one pair of sides"),
        ({"queries": "a", "documents": "b", "text_1": "a", "text_2": "b"}, "send exactly one pair"),
        (
            {"queries": ["a", "b"], "documents": ["c"]},
            "queries has 2 contents, and documents has 1",
        ),
        ({"queries": "a", "documents": []}, "documents has 0. Send 1 to 1"),
        ({"queries": "a", "documents": ["b", " "]}, "pair 1: neither text nor image"),
        ({"queries": "a", "documents": ["b"] * 9}, "9 documents: a request may have 8"),
        ({"queries": 7, "documents": "b"}, "queries: 7 is neither a text"),
    ],
)
def test_a_bad_request_is_named(body, message):
    status, answer = post("/score", body)
    assert status in (413, 422)
    assert message in answer["error"]["message"]


def test_passages_of_nim_come_back_with_their_logits():
    passages = [{"text": "a dog"}, {"text": "a cat", "image": DATA_URL}, {"image": "aGVsbG8="}]
    body = {"model": "m", "query": {"text": "a cat"}, "passages": passages, "truncate": "END"}
    answer = posted("/v1/ranking", body)
    dog, cat = verdicts(text("a cat"), text("a dog"), Content("a cat", PICTURE))
    expected = [{"index": 0, "logit": dog.log_odds}, {"index": 1, "logit": cat.log_odds}]
    assert answer["rankings"] == sorted(expected, key=lambda row: -row["logit"])
    assert [error["index"] for error in answer["errors"]] == [2]


def test_the_judge_is_the_only_model():
    async def call():
        transport = httpx2.ASGITransport(app())
        async with httpx2.AsyncClient(transport=transport, base_url="http://judge") as http:
            return (await http.get("/v1/models")).json()

    answer = run(call())
    assert [model["id"] for model in answer["data"]] == [JUDGE.identity.model]
    assert [model["name"] for model in answer["models"]] == [JUDGE.identity.model]
