"""A text that is far too long is refused before its prompt is made."""

import pytest

from judge_service.backends.rendering import CHARACTERS_IN_TOKEN, open_inputs
from judge_service.settings import LimitSettings, ModelSettings
from tests.pictures import noise
from unijudge.content import Content
from unijudge.errors import JudgeRefused
from unijudge.judging.prompt import Prompt
from unijudge.modeling.chat_encoder import ChatEncoder

MAX_TOKENS = 200
SHORT = Content("b")


@pytest.fixture
def inputs(tiny_model):
    model = ModelSettings(
        name=str(tiny_model), min_pixels=3136, max_pixels=12544, max_tokens=MAX_TOKENS
    )
    return open_inputs(model, Prompt(), LimitSettings(max_request_pixels=10_000))


@pytest.fixture
def made(monkeypatch):
    """The number of prompts that were made."""
    calls = []
    stream = ChatEncoder.stream
    monkeypatch.setattr(ChatEncoder, "stream", lambda *given: calls.append(1) or stream(*given))
    return calls


def test_a_query_too_long_for_any_prompt_is_tokenised_once(inputs, made):
    answers, streams = inputs.prepare(Content("word " * 400), [SHORT] * 30 + [Content("")])
    assert (len(made), streams) == (1, {})
    assert [answer.code for answer in answers] == ["too_long"] * 30 + ["empty"]


def test_a_text_longer_than_any_prompt_is_not_tokenised(inputs, made):
    huge = Content("a" * (CHARACTERS_IN_TOKEN * MAX_TOKENS + 1))
    answers, streams = inputs.prepare(SHORT, [huge, SHORT, huge])
    assert [answer and answer.code for answer in answers] == ["too_long", None, "too_long"]
    assert (len(made), list(streams)) == (1, [1])
    with pytest.raises(JudgeRefused, match=r"query: a text has 3201 characters: the limit is 3200"):
        inputs.prepare(huge, [SHORT])


def test_a_long_candidate_does_not_affect_other_candidates(inputs, made):
    answers, streams = inputs.prepare(Content("a"), [Content("word " * 400), SHORT])
    assert answers[0].code == "too_long"
    assert list(streams) == [1]


def test_images_that_take_too_long_to_decode_are_refused_undecoded(inputs, made):
    """The limit is 10,000 pixels. Two images of 4,800 pixels pass, even if they are repeated. A third one does not."""
    pictures = [Content(image=noise(seed, (80, 60))) for seed in range(3)]
    answers, _ = inputs.prepare(pictures[0], pictures[:2] * 4)
    assert answers == [None] * 8
    made.clear()
    with pytest.raises(
        JudgeRefused, match=r"have 14400 pixels in total: a request may have 10000\. Send fewer"
    ):
        inputs.prepare(pictures[0], pictures)
    assert not made
