"""A request's JSON is measured before it is parsed."""

import json
import tracemalloc

import pytest

from judge_service.front.bodies import read_request, work_of
from judge_service.front.errors import HttpError
from judge_service.settings import LimitSettings
from unijudge.content import Content

LIMITS = LimitSettings(max_candidates=64)
TEXTS = ["", 'a "quoted" one', "back\\slash", '\\"', "\\\\", "{[,]}", "\u2028 ü \\u0041", '","'] * 8


def body(candidates):
    return json.dumps({"query": {"text": '{"},['}, "candidates": candidates}).encode()


def test_the_largest_request_passes_with_any_text():
    found = read_request(body([{"text": text} for text in TEXTS]), LIMITS)
    assert [candidate.text for candidate in found.candidates] == TEXTS


@pytest.mark.parametrize(
    ("many", "status"),
    [
        (body([{}] * 200_000), 413),
        (body([{"text": "a"}] * 100_000), 413),
        (b'{"query":{"text":"a"},"candidates":[' + b"1," * 500_000 + b"1]}", 413),
        (b"[" * 500_000, 413),
        (b'{"query":{"text":"' + b'\\"' * 500_000, 400),
        (body([{"text": "a"}] * 65), 413),
        (body([{"txt": "a"}] * 64), 400),
        (b'"', 400),
    ],
)
def test_a_small_body_of_many_objects_costs_no_memory(many, status):
    tracemalloc.start()
    with pytest.raises(HttpError) as refusal:
        read_request(many, LIMITS)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert refusal.value.status == status
    assert len(str(refusal.value)) < 400
    assert peak < 4 * len(many) + 2**20


def test_the_work_of_a_request():
    """The query has 9 characters, each of two pairs adds 400, one candidate has 5, and a picture counts as 2,000."""
    assert (
        work_of(Content("a red fox"), [Content("a fox"), Content(image=b"...")])
        == 9 + 2 * 400 + 5 + 2000
    )
