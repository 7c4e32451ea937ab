"""POST /v1/systemone of TypeSafe."""

import json
import math

import pytest

from tests.judge_service.compatible.compatible_app import (
    BASE64,
    JUDGE,
    PICTURE,
    input_image,
    post,
    posted,
    text,
    verdicts,
)
from tests.judge_service.replica.judges import run
from unijudge.content import Content

STATE = "A cat sleeps on a mat."
KEY = "<image:0123456789abcdef0123456789abcdef>"
ASSETS = {KEY: {"type": "image", "format": "png", "data_base64": BASE64}}


def noul(instructions, **changes):
    return {"type": "noul", "instructions": instructions} | changes


def answers(state, questions, **changes):
    body = {"model": "any", "state": state, "questions": questions} | changes
    return posted("/v1/systemone", body)["answers"]


def multipart(request, *parts):
    """The body that typesafe-sdk writes: the JSON of the request, and the bytes of each image."""
    chunks = []
    for name, content in (("request", json.dumps(request).encode()), *parts):
        head = f'--x\r\nContent-Disposition: form-data; name="{name}"; filename="{name}"\r\n'
        chunks += [head.encode(), b"Content-Type: image/png\r\n\r\n", content, b"\r\n"]
    return b"".join(chunks) + b"--x--\r\n"


def post_parts(body):
    return post("/v1/systemone", body, {"content-type": "multipart/form-data; boundary=x"})


def test_a_noul_is_a_pair_of_the_state_and_the_instructions():
    answer = posted(
        "/v1/systemone", {"state": STATE, "questions": {"a": noul("a cat"), "b": noul("a dog")}}
    )
    cat, dog = verdicts(text(STATE), text("a cat"), text("a dog"))
    assert answer["answers"] == {
        "a": {"type": "noul", "noul": cat.score},
        "b": {"type": "noul", "noul": dog.score},
    }
    assert answer["model"] == JUDGE.identity.model
    assert answer["usage"] == {"input_tokens": 0, "output_tokens": 0}


def test_the_criteria_of_a_noul_are_lines_of_the_candidate():
    criteria = {"true": "a cat", "false": None}
    found = answers(
        STATE, {"a": noul("Which?", criteria=criteria), "b": {"type": "noul", "criteria": criteria}}
    )
    both, only = verdicts(text(STATE), text("Which?\nyes: a cat"), text("yes: a cat"))
    assert (found["a"]["noul"], found["b"]["noul"]) == (both.score, only.score)


def test_equal_questions_have_equal_answers_as_decisions():
    message = {"role": "user", "content": [{"type": "input_text", "text": STATE}, input_image()]}
    choices = [{"value": "cat", "description": "it purrs"}, {"value": "dog"}]
    levels = [{"label": "bad"}, {"label": "fair"}, {"label": "good"}]
    asked = [
        {"type": "predicate", "instructions": "a cat"},
        {"type": "choice", "instructions": "Which?", "choices": choices},
        {"type": "score", "instructions": "How good?", "levels": levels},
    ]
    one, two, three = posted("/v1/decisions", {"input": [message], "questions": asked})["answers"]
    questions = {
        "is": noul("a cat"),
        "which": {
            "type": "choice",
            "instructions": "Which?",
            "criteria": {"cat": "it purrs", "dog": None},
        },
        "how": {"type": "score", "instructions": "How good?", "criteria": ["bad", "fair", "good"]},
    }
    found = answers([STATE, KEY], questions, assets=ASSETS)
    assert found["is"]["noul"] == one["probability"]
    assert found["which"] == {
        "type": "choice",
        "choice": two["choice"],
        "confidence": two["confidence"],
        "probabilities": {row["value"]: row["probability"] for row in two["probabilities"]},
    }
    assert found["how"] == {
        "type": "score",
        "score": three["score"],
        "confidence": three["confidence"],
        "legend": {"0": "bad", "1": "fair", "2": "good"},
        "probabilities": {str(row["value"]): row["probability"] for row in three["probabilities"]},
    }
    assert math.fsum(found["how"]["probabilities"].values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("state", "query"),
    [
        (KEY, Content(image=PICTURE)),
        ([KEY], Content(image=PICTURE)),
        (["a cat", KEY, "a mat"], Content("a cat\na mat", PICTURE)),
        (f"{KEY}, on a mat", Content("the image, on a mat", PICTURE)),
        ({"photo": KEY, "year": 1871}, Content('{"photo": "the image", "year": 1871}', PICTURE)),
        ([{"photos": [KEY, KEY]}], Content('[{"photos": ["the image", "the image"]}]', PICTURE)),
    ],
)
def test_a_state_of_any_shape_names_an_image(state, query):
    (verdict,) = verdicts(query, text("a cat"))
    assert answers(state, {"a": noul("a cat")}, assets=ASSETS)["a"]["noul"] == verdict.score


def test_questions_and_options_name_images():
    questions = {
        "is": noul(KEY),
        "which": {"type": "choice", "criteria": {"photo": KEY, "dog": "it barks"}},
    }
    found = answers(STATE, questions, assets=ASSETS)
    (verdict,) = verdicts(text(STATE), Content(image=PICTURE))
    assert found["is"]["noul"] == verdict.score
    chosen = run(JUDGE.choose(text(STATE), [Content("photo", PICTURE), text("dog: it barks")]))
    shares = [math.exp(logprob) / chosen.mass for logprob in chosen.logprobs]
    assert list(found["which"]["probabilities"].values()) == shares


def test_an_image_that_is_a_part_of_the_body_is_the_same_image():
    request = {"state": KEY, "questions": {"a": noul("a cat")}}
    whole = answers(KEY, request["questions"], assets=ASSETS)
    body = multipart(
        request | {"assets": {KEY: {"type": "image", "part": "asset-0"}}}, ("asset-0", PICTURE)
    )
    status, answer = post_parts(body)
    assert status == 200
    assert answer["answers"] == whole


def test_a_part_may_have_any_bytes():
    broken = bytes(range(256)) + b"\r\n\r\n--\r\n--y\r\n"
    request = {"state": "a", "questions": {"a": noul(KEY)}, "assets": {KEY: {"part": "asset-0"}}}
    status, answer = post_parts(multipart(request, ("asset-0", broken)))
    assert status == 422
    assert answer["message"].startswith("questions.a: ")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"questions": {}}, "questions: Dictionary should have at least 1 item"),
        ({"questions": {"q": {"type": "box", "instructions": "a"}}}, "questions.q: Input tag 'box'"),
        ({"questions": {"q": {"type": "noul"}}}, "send instructions or criteria"),
        ({"questions": {"q": {"type": "choice", "criteria": {}}}}, "criteria: Dictionary should have at least 1 item"),
        ({"questions": {"q": {"type": "choice", "criteria": {str(n): None for n in range(10)}}}}, "at most 9 items"),
        ({"questions": {"q": {"type": "score", "criteria": []}}}, "criteria: List should have at least 1 item"),
        ({"questions": {"q": {"type": "noul", "instructions": 7}}}, "questions.q.noul.instructions"),
        ({"questions": {"q": noul("")}}, "questions.q: "),
        ({"questions": {"q" * 5000: noul("")}}, "questions.qqq"),
        ({"state": None}, "state.str: Input should be a valid string"),
        ({"state": ""}, "query: neither text nor image"),
        ({"state": []}, "query: neither text nor image"),
        ({"assets": ASSETS}, "no text names this image. Put its key into the state"),
        ({"assets": {KEY: {"data_base64": "http://a/b.png"}}}, "an address is never opened"),
        ({"assets": {KEY: {"data_base64": "é"}}}, "not base64"),
        ({"assets": {KEY: {"type": "image"}}}, "no image. Send data_base64"),
        ({"assets": {KEY: {"part": "asset-0"}}}, "the body has no part 'asset-0'"),
        ({"assets": {KEY: {"type": "video", "data_base64": BASE64}}}, "Input should be 'image'"),
        (
            {"state": "a b", "assets": {"a": ASSETS[KEY], "b": ASSETS[KEY]}},
            "state: 2 images. A side of a pair has at most one image",
        ),
    ],
)  # fmt: skip
def test_a_bad_request_is_named(changes, message):
    status, answer = post(
        "/v1/systemone", {"state": STATE, "questions": {"q": noul("a")}} | changes
    )
    assert status == 422
    assert message in answer["error"]["message"]
    assert len(answer["message"]) < 400


@pytest.mark.parametrize(
    ("content_type", "body", "status", "message"),
    [
        ("multipart/form-data", b"--x--", 422, "multipart without a boundary"),
        ("multipart/form-data; boundary=x", b"", 422, "the body has no last boundary"),
        ("multipart/form-data; boundary=x", multipart({})[:-7], 422, "the body has no last boundary"),
        ("multipart/form-data; boundary=x", b"--x--\r\n", 422, 'no part is named "request"'),
        ("multipart/form-data; boundary=x", b"--x\r\n\r\na\r\n--x--", 422, "part 0 of the body has no name"),
        ("multipart/form-data; boundary=x", multipart({}, ("request", b"")), 422, "two parts of the body are named"),
        ("multipart/form-data; boundary=x", b"\r\n--x" * 2000 + b"--", 413, "more than 1000 parts"),
        ("multipart/form-data; boundary=x", multipart({}), 422, "state: Field required"),
    ],
)  # fmt: skip
def test_a_broken_body_of_parts_is_named(content_type, body, status, message):
    found, answer = post("/v1/systemone", body, {"content-type": content_type})
    assert found == status
    assert message in answer["message"]
