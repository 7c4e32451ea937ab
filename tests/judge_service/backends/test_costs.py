"""The cost of an answer: the tokens of its prompt, the tokens that were computed for it, and its pictures."""

import asyncio

import pytest

from judge_service.replica.counting import PairCounter
from tests.judge_service.replica.loaded import load
from tests.pictures import png
from unijudge.content import Content
from unijudge.judging.verdicts import FREE, Cost
from unijudge.modeling.vision_cache import Vision

QUERY = Content("a cat on a mat", png("red"))
CANDIDATES = [Content("a cat"), Content("a dog", png("blue")), Content(), Content("two words")]


@pytest.fixture(scope="module")
def judge(tiny_model):
    return load(tiny_model)


def test_the_prefix_of_a_query_is_computed_once(judge):
    verdicts = asyncio.run(judge.judge(QUERY, CANDIDATES))
    counts = PairCounter(judge.inputs).count(QUERY, CANDIDATES)
    first, second, _, last = verdicts
    assert verdicts[2].code == "empty"
    assert first.cost == Cost(
        prompt_tokens=counts[0].tokens,
        computed_tokens=counts[0].tokens,
        images=1,
        images_encoded=1,
    )
    for verdict, count, images in ((second, counts[1], 2), (last, counts[3], 1)):
        assert verdict.cost == Cost(
            prompt_tokens=count.tokens,
            computed_tokens=count.tokens - count.shared_tokens,
            images=images,
            images_encoded=images - 1,  # the query's picture is in the prefix
        )


def test_a_list_is_one_prompt(judge):
    verdict = asyncio.run(judge.choose(QUERY, [Content("a cat"), Content("a dog", png("blue"))]))
    assert verdict.cost.images == 2
    assert verdict.cost.prompt_tokens == verdict.cost.computed_tokens > 0


def encodings(judge, monkeypatch):
    """Returns a list that grows by one entry for each run of the vision tower."""
    runs = []
    tower = judge._model.model.visual
    forward = tower.forward

    def counted(*args, **more):
        runs.append(1)
        return forward(*args, **more)

    monkeypatch.setattr(tower, "forward", counted)
    return runs


def asked(judge, queries, candidates):
    """Returns the answers to all queries, and the sum of their costs."""
    answers = [
        verdict for query in queries for verdict in asyncio.run(judge.judge(query, candidates))
    ]
    return answers, sum([answer.cost for answer in answers], FREE)


QUERIES = [
    Content("which?", png("red")),
    Content("which?", png("green")),
    Content("what?", png("red")),
]
PICTURES = [Content(image=png(color)) for color in ("blue", "white", "red", "blue")]


def test_a_picture_is_encoded_once_in_several_queries(tiny_model, monkeypatch):
    kept = load(tiny_model)
    runs = encodings(kept, monkeypatch)
    answers, cost = asked(kept, QUERIES, PICTURES)
    assert cost.images == len(QUERIES) * len(PICTURES) * 2
    assert len(runs) == cost.images_encoded == 4

    # Without a cache, each request encodes its pictures again, and the scores are equal to the last bit.
    bare = load(tiny_model, vision_cache_mb=0)
    runs = encodings(bare, monkeypatch)
    again, cost = asked(bare, QUERIES, PICTURES)
    assert len(runs) == cost.images_encoded > 4
    assert [one.log_odds for one in again] == [one.log_odds for one in answers]
    assert kept.identity == bare.identity


def test_a_cache_too_small_for_a_request_does_not_change_scores(tiny_model, monkeypatch):
    whole, _ = asked(load(tiny_model), QUERIES, PICTURES)
    judge = load(tiny_model)

    # Room for one picture: pictures are evicted during a request.
    (features,) = judge._vision.features(judge._model.model, [png("red")]).values()
    judge._vision = Vision(judge.inputs.model, keep_bytes=features.nbytes)
    runs = encodings(judge, monkeypatch)
    answers, cost = asked(judge, QUERIES, PICTURES)
    assert len(runs) == cost.images_encoded > 4
    assert [one.log_odds for one in answers] == [one.log_odds for one in whole]


def test_a_sum_with_an_unknown_part_is_unknown():
    unknown = Cost(prompt_tokens=1, computed_tokens=1, images=1)
    assert (FREE + unknown).images_encoded is None


def test_costs_add_up():
    cost = Cost(prompt_tokens=10, computed_tokens=4, images=1)
    assert sum([cost, cost], FREE) == Cost(prompt_tokens=20, computed_tokens=8, images=2)
