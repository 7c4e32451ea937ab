"""POST /rerank and its sisters, in the shapes that the clients of other servers send."""

import pytest

from tests.judge_service.compatible.compatible_app import (
    BASE64,
    DATA_URL,
    PICTURE,
    post,
    posted,
    text,
    verdicts,
)
from unijudge.content import Content

PATHS = ("/rerank", "/v1/rerank", "/v2/rerank")
DOCUMENTS = ["a cat", "a dog", "a red fox", "two cats", "rain"]


def best_first(scores):
    return sorted(range(len(scores)), key=lambda index: -scores[index])


@pytest.mark.parametrize("path", PATHS)
def test_documents_come_back_in_the_order_of_their_scores(path):
    answer = posted(path, {"model": "any", "query": "a cat", "documents": DOCUMENTS})
    scores = [verdict.score for verdict in verdicts(text("a cat"), *map(text, DOCUMENTS))]
    assert [result["index"] for result in answer["results"]] == best_first(scores)
    for result in answer["results"]:
        assert result["relevance_score"] == scores[result["index"]]
        assert result["document"] == {"text": DOCUMENTS[result["index"]]}
    assert answer["errors"] == answer["meta"]["warnings"] == []
    assert answer["usage"] == {"prompt_tokens": 0, "total_tokens": 0}
    assert answer["id"].startswith("rerank-")


@pytest.mark.parametrize(
    ("document", "content"),
    [
        ("a cat", text("a cat")),
        ({"text": "a cat"}, text("a cat")),
        ({"text": "a cat", "image": None}, text("a cat")),
        ({"image": DATA_URL}, Content(image=PICTURE)),
        ({"image": BASE64}, Content(image=PICTURE)),
        (DATA_URL, Content(image=PICTURE)),
        ({"text": "a cat", "image": DATA_URL}, Content("a cat", PICTURE)),
        ({"content": "a cat"}, text("a cat")),
        ({"content": [{"type": "text", "text": "a cat"}]}, text("a cat")),
        (
            {"content": [{"type": "text", "text": "a cat"}, {"type": "image_url", "image_url": {"url": DATA_URL}}]},
            Content("a cat", PICTURE),
        ),
        ([{"type": "image_url", "image_url": DATA_URL}], Content(image=PICTURE)),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "cat"}], text("a\ncat")),
        ({"text": "http://example.com/cat.png"}, text("http://example.com/cat.png")),
    ],
)  # fmt: skip
def test_every_shape_of_a_document_is_the_content_that_it_means(document, content):
    answer = posted("/v1/rerank", {"query": document, "documents": [document, "other"]})
    by_index = {result["index"]: result["relevance_score"] for result in answer["results"]}
    same, other = verdicts(content, content, text("other"))
    assert by_index == {0: same.score, 1: other.score}


def test_a_client_of_cohere_chooses_the_fields_of_an_object():
    document = {"title": "Cats", "body": "They purr.", "id": 7}
    answer = posted(
        "/v1/rerank", {"query": "a", "documents": [document], "rank_fields": ["title", "body"]}
    )
    (verdict,) = verdicts(text("a"), text("title: Cats\nbody: They purr."))
    assert answer["results"][0]["relevance_score"] == verdict.score


@pytest.mark.parametrize(("top_n", "number"), [(2, 2), (5, 5), (10**9, 5), (0, 5), (None, 5)])
def test_top_n(top_n, number):
    answer = posted("/rerank", {"query": "a", "documents": DOCUMENTS, "top_n": top_n})
    assert len(answer["results"]) == number


def test_options_of_other_servers_are_ignored():
    options = {
        "max_tokens_per_doc": None,
        "max_chunks_per_doc": 10,
        "truncate_prompt_tokens": -1,
        "priority": 0,
        "user": "me",
        "truncation_side": None,
        "instruction": None,
        "rank_fields": None,
    }
    posted("/v2/rerank", {"query": "a", "documents": ["b"]} | options)


def test_documents_are_left_out_for_a_client_that_does_not_want_them():
    body = {"query": "a", "documents": [{"image": DATA_URL}]}
    (silent,) = posted("/v1/rerank", body)["results"]
    assert silent["document"] == {"text": None}
    (wanted,) = posted("/v1/rerank", body | {"return_documents": True})["results"]
    assert wanted["document"] == {"image": DATA_URL}
    (unwanted,) = posted("/v1/rerank", body | {"return_documents": False})["results"]
    assert "document" not in unwanted


@pytest.mark.parametrize("option", [{"raw_scores": True}, {"use_activation": False}])
def test_a_raw_score_is_the_log_odds(option):
    (result,) = posted("/rerank", {"query": "a", "documents": ["b"]} | option)["results"]
    (verdict,) = verdicts(text("a"), text("b"))
    assert result["relevance_score"] == verdict.log_odds


def test_a_document_that_cannot_be_judged_has_no_score():
    documents = ["b", {"image": "aGVsbG8="}, {"text": " "}]
    answer = posted("/v1/rerank", {"query": "a", "documents": documents})
    assert [result["index"] for result in answer["results"]] == [0]
    assert [(error["index"], error["code"]) for error in answer["errors"]] == [
        (1, "bad_image"),
        (2, "empty"),
    ]
    assert answer["meta"]["warnings"][1].startswith("document 2: neither text nor image")


def test_more_documents_than_a_request_has_candidates_are_judged_in_groups():
    documents = [f"document {number}" for number in range(8)]
    answer = posted("/v1/rerank", {"query": "a", "documents": documents})
    scores = [verdict.score for verdict in verdicts(text("a"), *map(text, documents))]
    assert [result["index"] for result in answer["results"]] == best_first(scores)


def test_equal_documents_keep_their_order():
    answer = posted("/rerank", {"query": "a", "documents": ["b"] * 5})
    assert [result["index"] for result in answer["results"]] == list(range(5))


def test_a_client_of_tei_gets_a_bare_list():
    body = {"query": "a cat", "texts": DOCUMENTS, "truncate": None, "return_text": True}
    answer = posted("/rerank", body)
    scores = [verdict.score for verdict in verdicts(text("a cat"), *map(text, DOCUMENTS))]
    assert answer == [
        {"index": index, "score": scores[index], "text": DOCUMENTS[index]}
        for index in best_first(scores)
    ]


def test_a_client_of_tei_gets_a_score_for_each_text_or_an_error_as_text():
    status, answer = post("/rerank", {"query": "a", "texts": ["b", " "]})
    assert status == 422
    assert answer["error"].startswith("texts.1: neither text nor image")
    assert answer["error_type"] == "empty"


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("changes", "status", "message"),
    [
        ({"documents": []}, 422, "documents: List should have at least 1 item"),
        ({"documents": None}, 422, "send either documents or texts"),
        ({"texts": ["b"]}, 422, "send either documents or texts"),
        ({"documents": "b"}, 422, "documents: Input should be a valid"),
        ({"documents": [None]}, 422, "documents.0: None is neither a text"),
        ({"documents": [7]}, 422, "documents.0: 7 is neither a text"),
        ({"documents": [{"url": "b"}]}, 422, "documents.0: {'url': 'b'} is neither a text"),
        ({"documents": [{"text": ["b"]}]}, 422, "documents.0.text: ['b'] is not a text"),
        ({"documents": ["b"] * 9}, 413, "9 documents: a request may have 8"),
        ({"documents": ["b"] * 10_001}, 413, "the body has more fields than the largest request"),
        ({"query": None}, 422, "query: None is neither a text"),
        ({"query": " "}, 422, "query: neither text nor image"),
        ({"top_n": -1}, 422, "top_n: Input should be greater than or equal to 0"),
        ({"top_n": 1.5}, 422, "top_n: Input should be a valid integer"),
        ({"top_n": True}, 422, "top_n: Input should be a valid integer"),
        ({"top_n": "all"}, 422, "top_n: Input should be a valid integer"),
        ({"instruction": "Match?"}, 422, "instruction: this judge has its own instruction"),
        ({"documents": [{"image": "https://example.com/a.png"}]}, 422, "documents.0.image: an address is never opened"),
        ({"documents": [{"image": "C:\\\\a.png"}]}, 422, "documents.0.image: not base64 of an image"),
        ({"documents": [{"image": DATA_URL[:-3] + "é"}]}, 422, "documents.0.image: not base64"),
        ({"documents": [[{"type": "video_url", "video_url": "x"}]]}, 422, "documents.0.0: a part of type 'video_url'"),
        ({"documents": [[{"text": "x"}]]}, 422, "documents.0.0: a part without a type"),
        (
            {"documents": [[{"type": "image", "image": DATA_URL}, {"type": "image", "image": DATA_URL}]]},
            422,
            "documents.0: 2 images. A side of a pair has at most one image",
        ),
        ({"documents": [{"image": "A" * 120_000}]}, 413, "the body exceeds 100000 bytes"),
    ],
)  # fmt: skip
def test_a_bad_request_is_named_in_every_field_in_which_a_client_looks(
    path, changes, status, message
):
    found, answer = post(path, {"query": "a", "documents": ["b"]} | changes)
    assert found == status, answer
    assert message in answer["message"]
    assert answer["detail"] == answer["error"]["message"] == answer["message"]
    assert len(answer["message"]) < 400
    assert found != 409
