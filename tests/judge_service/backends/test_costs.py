"""The cost of an answer: the tokens of its prompt, the tokens that were computed for it, and its pictures."""

import asyncio

import pytest

from judge_service.replica.counting import PairCounter
from tests.judge_service.replica.loaded import load
from tests.pictures import png
from unijudge.content import Content
from unijudge.judging.verdicts import FREE, Cost

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
        prompt_tokens=counts[0].tokens, computed_tokens=counts[0].tokens, images=1
    )
    for verdict, count, images in ((second, counts[1], 2), (last, counts[3], 1)):
        assert verdict.cost == Cost(
            prompt_tokens=count.tokens,
            computed_tokens=count.tokens - count.shared_tokens,
            images=images,
        )


def test_a_list_is_one_prompt(judge):
    verdict = asyncio.run(judge.choose(QUERY, [Content("a cat"), Content("a dog", png("blue"))]))
    assert verdict.cost.images == 2
    assert verdict.cost.prompt_tokens == verdict.cost.computed_tokens > 0


def test_costs_add_up():
    cost = Cost(prompt_tokens=10, computed_tokens=4, images=1)
    assert sum([cost, cost], FREE) == Cost(prompt_tokens=20, computed_tokens=8, images=2)
