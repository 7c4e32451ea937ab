"""POST /v1/decisions of OpenAI."""

import math

import pytest

from tests.judge_service.compatible.compatible_app import (
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

INPUT = "A cat sleeps on a mat."


def predicate(instructions, **changes):
    return {"type": "predicate", "instructions": instructions} | changes


def test_predicates_are_pairs_of_the_input_and_the_instructions():
    questions = [predicate("a cat", name="cat"), predicate("a dog")]
    answer = posted("/v1/decisions", {"model": "any", "input": INPUT, "questions": questions})
    cat, dog = verdicts(text(INPUT), text("a cat"), text("a dog"))
    assert answer["answers"] == [
        {"type": "predicate", "name": "cat", "probability": cat.score},
        {"type": "predicate", "name": None, "probability": dog.score},
    ]
    assert answer["model"] == JUDGE.identity.model
    assert answer["usage"]["total_tokens"] == 0


def test_a_choice_asks_the_listwise_question():
    choices = [
        {"value": "cat", "description": "an animal that purrs"},
        {"value": True},
        {"value": "true"},
    ]
    question = {
        "type": "choice",
        "name": "which",
        "instructions": "Which animal?",
        "choices": choices,
    }
    (answer,) = posted("/v1/decisions", {"input": INPUT, "questions": [question]})["answers"]
    options = [text("cat: an animal that purrs"), text("True"), text("true")]
    found = run(JUDGE.choose(text(f"{INPUT}\nWhich animal?"), options))
    shares = [math.exp(logprob) / found.mass for logprob in found.logprobs]
    assert [row["value"] for row in answer["probabilities"]] == ["cat", True, "true"]
    assert [row["probability"] for row in answer["probabilities"]] == shares
    assert answer["choice"] == ["cat", True, "true"][found.place]
    assert answer["confidence"] == pytest.approx(max(shares) * found.mass)


def test_a_score_is_the_expected_level():
    levels = [{"label": "bad"}, {"label": "fair"}, {"label": "good", "description": "no fault"}]
    question = {"type": "score", "instructions": "How good?", "levels": levels}
    (answer,) = posted("/v1/decisions", {"input": INPUT, "questions": [question]})["answers"]
    rows = answer["probabilities"]
    assert [(row["value"], row["label"]) for row in rows] == [(0, "bad"), (1, "fair"), (2, "good")]
    assert answer["score"] == pytest.approx(sum(row["value"] * row["probability"] for row in rows))
    assert math.fsum(row["probability"] for row in rows) == pytest.approx(1)


def test_input_and_questions_hold_pictures():
    content = [{"type": "input_text", "text": "a photo"}, input_image()]
    message = {"role": "user", "content": content}
    picture = [input_image() | {"detail": "low"}]
    body = {"input": [message], "questions": [predicate(picture), predicate("a cat")]}
    first, second = posted("/v1/decisions", body)["answers"]
    query = Content("a photo", PICTURE)
    picture_verdict, cat = verdicts(query, Content(image=PICTURE), text("a cat"))
    assert (first["probability"], second["probability"]) == (picture_verdict.score, cat.score)


def test_messages_and_outputs_of_tools_are_lines_of_the_input():
    items = [
        {"role": "system", "content": "one"},
        {"type": "function_call", "name": "f", "call_id": "1", "arguments": "two"},
        {"type": "function_call_output", "call_id": "1", "output": "three"},
        {"role": "assistant", "content": [{"type": "output_text", "text": "four"}]},
        {"role": "user", "content": [{"type": "input_json", "data": {"five": 5}}]},
    ]
    body = {"input": items, "questions": [predicate("a cat")]}
    (answer,) = posted("/v1/decisions", body)["answers"]
    (verdict,) = verdicts(text('one\ntwo\nthree\nfour\n{"five": 5}'), text("a cat"))
    assert answer["probability"] == verdict.score


def test_a_question_that_cannot_be_judged_is_a_refusal_and_the_others_are_answered():
    broken = [input_image("data:image/png;base64,aGVsbG8=")]
    choices = [{"value": "a"}, {"value": "b"}]
    body = {
        "input": INPUT,
        "questions": [
            predicate(broken, name="broken"),
            predicate("a cat"),
            {"type": "choice", "instructions": broken, "choices": choices},
        ],
    }
    first, second, third = posted("/v1/decisions", body)["answers"]
    assert (first["type"], first["name"]) == ("refusal", "broken")
    assert second["type"] == "predicate"
    assert third["type"] == "refusal"
    assert not any("probabilit" in key for key in (*first, *third))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"questions": []}, "questions: List should have at least 1 item"),
        ({"questions": [predicate("a")] * 401}, "the body has more fields than the largest request"),
        ({"questions": [predicate("a")] * 9}, "9 documents: a request may have 8"),
        ({"questions": [{"type": "box", "instructions": "a"}]}, "questions.0: Input tag 'box'"),
        ({"questions": [predicate(7)]}, "questions.0.instructions: 7 is neither a text"),
        (
            {"questions": [{"type": "choice", "instructions": "a", "choices": [{"value": str(n)} for n in range(10)]}]},
            "questions.0.choice.choices: List should have at most 9 items",
        ),
        (
            {"questions": [{"type": "choice", "instructions": "a", "choices": [{"value": "b"}, {"value": "b"}]}]},
            "two choices have the value 'b'",
        ),
        ({"input": None}, "input: None is neither a text"),
        ({"input": []}, "query: neither text nor image"),
        ({"input": [{"role": "user"}]}, "input.0: is not a message"),
        ({"input": [{"role": "user", "content": [input_image("http://a/b.png")]}]}, "an address is never opened"),
    ],
)  # fmt: skip
def test_a_bad_request_is_named(changes, message):
    status, answer = post(
        "/v1/decisions", {"input": INPUT, "questions": [predicate("a")]} | changes
    )
    assert status in (413, 422)
    assert message in answer["error"]["message"]
