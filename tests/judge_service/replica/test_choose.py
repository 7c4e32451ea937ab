"""POST /v1/choose: the probabilities of the numbers equal those of the model, other answers make no choice, and
errors.
"""

import asyncio
import math

import httpx2
import pytest
import torch
import transformers

from judge_service.backends.scripted import ScriptedJudge
from judge_service.front.blobs import BlobStore
from judge_service.replica.app import create_app
from judge_service.replica.health import WatchedJudge
from judge_service.settings import HealthSettings, LimitSettings
from tests.contents import CONTENTS
from tests.judge_service.replica.judges import Answering, Counting
from tests.judge_service.replica.judges import raw as post
from tests.judge_service.replica.loaded import load
from tests.pictures import noise, png
from unijudge.client.client import JudgeClient
from unijudge.content import Content
from unijudge.errors import JudgeBroken, JudgeRefused, ModelError
from unijudge.judging.prompt import LONGEST_LIST, Prompt, list_parts
from unijudge.judging.verdicts import ListVerdict, PairError
from unijudge.modeling.listwise import ListQuestion

TEXTS = [Content(text=f"number {number}") for number in range(LONGEST_LIST + 1)]
QUERY = Content(text="a cat", image=png("red", (60, 60)))
BODY = {"query": {"text": "a"}, "candidates": [{"text": "b"}, {"text": "c"}]}


@pytest.fixture(scope="module")
def judge(tiny_model):
    return load(tiny_model, max_tokens=1024)


def serve(judge, blobs=None, **limits):
    watched = WatchedJudge(judge, HealthSettings(canary_every_s=0, min_label_mass=0))
    return create_app(watched, LimitSettings(**limits), blobs=blobs)


def choose(app, query, candidates, transport=None):
    async def ask():
        async with JudgeClient(
            "http://judge", transport=transport or Counting(app), retry_for_s=5
        ) as client:
            return await client.choose(query, candidates)

    return asyncio.run(ask())


def raw(app, body, headers=()):
    return post(app, body, headers, path="/v1/choose")


def test_the_numbers_are_the_models_own(judge, tiny_model):
    """The prompt comes from transformers' own template and tokenizer.

    One forward pass gives the logits of the digits.
    """
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_model)
    text = "".join(list_parts(TEXTS[0], TEXTS[1:6]))
    message = [{"role": "user", "content": [{"type": "text", "text": text}]}]
    prompt = (
        tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
        + "Ans: ("
    )
    with torch.inference_mode():
        logits = judge._model(torch.tensor([tokenizer(prompt)["input_ids"]])).logits[0, -1]
    digits = [tokenizer(str(number))["input_ids"][0] for number in range(1, 6)]
    expected = logits.log_softmax(-1)[digits].tolist()
    found = choose(serve(judge), TEXTS[0], TEXTS[1:6])
    assert found.logprobs == pytest.approx(expected, abs=1e-4)
    assert found.mass == pytest.approx(sum(map(math.exp, expected)), abs=1e-5)
    assert found.place == (
        expected.index(max(expected)) if int(logits.argmax()) in digits else None
    )


def test_there_is_a_choice_only_if_the_likeliest_answer_is_a_number_of_the_list(judge, monkeypatch):
    """The number 4 is the most probable token.

    4 is the choice from a list of five, and is no choice from a list of three.
    """
    numbers = judge._inputs.lists.number_ids
    true_logprobs = judge._logprobs_BV

    def leaning(*arguments):
        logprobs_BV = true_logprobs(*arguments)
        logprobs_BV[:, numbers[3]] = 0.0
        return logprobs_BV

    monkeypatch.setattr(judge, "_logprobs_BV", leaning)
    five, three = (choose(serve(judge), QUERY, TEXTS[:count]) for count in (5, 3))
    assert (five.place, five.logprobs[3], len(five.logprobs)) == (3, 0.0, 5)
    assert (three.place, len(three.logprobs)) == (None, 3)
    assert three.mass < five.mass


def test_pictures_of_every_candidate_are_seen(judge):
    """One pixel of the last of nine mixed candidates changes its colour, and the probabilities change."""
    candidates = [*CONTENTS[6:14], Content(image=png("blue", (60, 60)))]
    one = choose(serve(judge), QUERY, candidates)
    other = choose(serve(judge), QUERY, [*candidates[:-1], Content(image=png("green", (60, 60)))])
    assert len(one.logprobs) == len(candidates) == LONGEST_LIST
    assert one.logprobs != other.logprobs
    assert one == choose(serve(judge), QUERY, candidates)


def test_the_scripted_judge_prefers_the_pair_that_it_scores_highest():
    judge = ScriptedJudge(Prompt())
    verdicts = asyncio.run(judge.judge(QUERY, TEXTS[:4]))
    odds = [math.exp(verdict.log_odds) for verdict in verdicts]
    found = choose(serve(judge), QUERY, TEXTS[:4])
    assert found.logprobs == pytest.approx([math.log(one / sum(odds)) for one in odds])
    assert found.place == odds.index(max(odds))
    assert found.mass == pytest.approx(1)
    swapped = choose(serve(judge), QUERY, TEXTS[3::-1])
    assert swapped.logprobs == pytest.approx(found.logprobs[::-1])


@pytest.mark.parametrize("backend", ["scripted", "transformers"])
def test_a_list_that_cannot_be_judged_is_an_error_with_status_200(judge, backend):
    app = serve(
        judge if backend == "transformers" else ScriptedJudge(Prompt()), max_body_bytes=20_000
    )
    broken = choose(app, QUERY, [TEXTS[0], Content(image=b"junk"), TEXTS[1]])
    assert broken.code == "bad_image"
    assert broken.message.startswith("candidate 2: not a JPEG")
    large = choose(app, QUERY, [Content(text="x" * 9_000)] * 3)
    assert (large.code, "List fewer" in large.message) == ("too_large", True)
    with pytest.raises(JudgeRefused, match="422: query: not a JPEG"):
        choose(app, Content(image=b"junk"), TEXTS[:2])
    if backend == "transformers":
        long = choose(app, QUERY, [Content(text="word " * 300)] * 3)
        assert long.code == "too_long"
        assert "this judge accepts 1024. List fewer candidates" in long.message


def test_ten_candidates_are_too_many_for_one_list():
    app = serve(ScriptedJudge(Prompt()))
    assert isinstance(choose(app, QUERY, TEXTS[:LONGEST_LIST]), ListVerdict)
    with pytest.raises(JudgeRefused, match="422: 10 candidates: a list has at most 9"):
        choose(app, QUERY, TEXTS)


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (BODY, {"If-Match": '"0123"'}, 412, "other_judge"),
        (BODY | {"candidates": []}, {}, 400, "bad_request"),
        (BODY | {"candidates": [{"text": "b"}] * 10}, {}, 422, "too_many"),
        (BODY | {"candidates": [{"text": "b"}] * 65}, {}, 413, "too_large"),
        (BODY | {"candidates": [{"image_sha256": "0" * 64}]}, {}, 400, "no_blobs"),
    ],
)
def test_requests_that_scoring_refuses_are_refused(body, headers, status, code):
    answer = raw(serve(ScriptedJudge(Prompt())), body, headers)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_an_answer_has_the_identity_of_the_judge():
    judge = ScriptedJudge(Prompt())
    answer = raw(serve(judge), BODY)
    assert answer.status_code == 200
    assert answer.headers["ETag"] == f'"{judge.identity.digest}"'
    assert answer.json()["identity"] == judge.identity.model_dump()
    assert set(answer.json()["result"]) == {"place", "logprobs", "mass"}


def test_images_are_sent_once_for_lists_and_scores(tmp_path):
    app = serve(ScriptedJudge(Prompt()), BlobStore(tmp_path, max_bytes=10**6))
    transport = Counting(app)
    pictures = [Content(image=noise(seed)) for seed in range(3)]

    async def both():
        async with JudgeClient("http://judge", transport=transport, retry_for_s=5) as client:
            return await client.choose(QUERY, pictures), await client.judge(QUERY, pictures)

    found, verdicts = asyncio.run(both())
    assert found.place == max(range(3), key=lambda place: verdicts[place].log_odds)
    assert sum(request.method == "PUT" for request in transport.seen) == 3


def test_a_judge_that_cannot_choose_is_reported(identity, judge, monkeypatch):
    with pytest.raises(JudgeRefused, match="answers only pair by pair"):
        choose(serve(Answering(identity, (0.9, 0.1), (0.1, 0.9))), QUERY, TEXTS[:2])
    monkeypatch.setattr(
        "unijudge.modeling.listwise.list_answer", lambda number: "Ans: " + "x" * number
    )
    with pytest.raises(ModelError, match="the numbers 1 to 9 are not one token each"):
        ListQuestion(judge._inputs.model.encoder)
    judge._inputs.__dict__.pop("lists", None)
    with pytest.raises(
        JudgeRefused, match="not one token each in 'Ans: x', so this model cannot answer listwise"
    ):
        choose(serve(judge), QUERY, TEXTS[:2])


def test_too_few_numbers_stop_the_client():
    short = {
        "identity": ScriptedJudge(Prompt()).identity.model_dump(),
        "result": {"place": 0, "logprobs": [-1.0], "mass": 0.4},
    }
    transport = Counting(serve(ScriptedJudge(Prompt())), [httpx2.Response(200, json=short)])
    with pytest.raises(JudgeBroken, match="2 candidates sent, 1 answers returned"):
        choose(None, QUERY, TEXTS[:2], transport)


def test_a_choice_shows_that_the_judge_works(judge, monkeypatch):
    watched = WatchedJudge(judge, HealthSettings(canary_every_s=0, min_label_mass=0))
    asked = []
    monkeypatch.setattr(judge, "judge", lambda *pair: asked.append(pair))
    refused = asyncio.run(watched.choose(QUERY, [Content(image=b"junk")]))
    assert isinstance(refused, PairError)
    assert watched._scored_at == float("-inf")
    asyncio.run(watched.choose(QUERY, TEXTS[:2]))
    asyncio.run(watched.check_alive())
    assert not asked
