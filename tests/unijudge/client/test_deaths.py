"""Pairs that kill their judge: each pair is found after at most four deaths, and all other pairs get a verdict."""

import asyncio
import random
from collections import Counter

import httpx2
import pytest

from judge_service.backends.scripted import ScriptedJudge
from judge_service.replica.app import create_app
from judge_service.replica.health import WatchedJudge
from judge_service.settings import FrontSettings, HealthSettings, LimitSettings
from unijudge.client.asking import KILLS
from unijudge.client.client import JudgeClient
from unijudge.content import Content
from unijudge.errors import JudgeDied, JudgeKilled
from unijudge.judging.prompt import Prompt
from unijudge.judging.verdicts import ListVerdict, PairError, Verdict

LETHAL = Content("a lethal candidate")
MOST = 4


class Mortal(ScriptedJudge):
    """An engine whose death every request in it notices. The next engine starts at once."""

    def __init__(self, seconds=0.005):
        super().__init__(Prompt())
        self.seconds = seconds
        self.inside = set()
        self.deaths = Counter()  # deaths by query and candidate
        self.company = []  # the number of requests that ran at each question

    async def judge(self, query, candidates):
        await self.survive(query, candidates)
        return await super().judge(query, candidates)

    async def choose(self, query, candidates):
        await self.survive(query, candidates)
        return await super().choose(query, candidates)

    async def survive(self, query, candidates):
        death = asyncio.get_running_loop().create_future()
        self.inside.add(death)
        self.company.append(len(self.inside))
        try:
            await asyncio.wait([death], timeout=self.seconds)
            killers = [
                one.text for one in candidates if "lethal" in one.text or "lethal" in query.text
            ]
            if killers and not death.done():
                self.deaths[query.text, killers[0]] += 1
                for one in self.inside:
                    if not one.done():
                        one.set_exception(JudgeDied("the engine has died"))
            if death.done():
                death.result()
        finally:
            self.inside.discard(death)


@pytest.fixture(autouse=True)
def _soon(monkeypatch):
    monkeypatch.setattr("unijudge.client.retry._wait", lambda _: random.uniform(0, 0.01))


def app_of(judge, **limits):
    front = FrontSettings(max_ongoing_requests=4)
    watched = WatchedJudge(judge, HealthSettings(canary_every_s=0))
    return create_app(watched, LimitSettings(**limits), front=front)


def answers_of_all(judge, questions, method="judge", **limits):
    """Returns the answers to all questions, sent at once.

    A refused question has an error in the place of its answer.
    """

    async def ask():
        transport = httpx2.ASGITransport(app_of(judge, **limits))
        async with JudgeClient("http://judge", transport=transport, first=16) as client:
            asking = (getattr(client, method)(query, candidates) for query, candidates in questions)
            return await asyncio.gather(*asking, return_exceptions=True)

    return asyncio.run(ask())


def truth(query, candidates):
    return asyncio.run(ScriptedJudge(Prompt()).judge(query, candidates))


@pytest.mark.parametrize("seed", range(5))
def test_a_pair_that_kills_the_judge_gets_an_error_and_other_pairs_get_verdicts(seed):
    """Fifty queries run on a replica that works on four requests at once.

    Two candidates kill the judge, and each is in six queries.
    """
    dice = random.Random(seed)
    questions = [
        (Content(f"query {n}"), [Content(f"candidate {dice.randrange(100)}") for _ in range(9)])
        for n in range(50)
    ]
    for name in ("one", "other"):
        for place in dice.sample(range(50), 6):
            questions[place][1][dice.randrange(9)] = Content(f"lethal, {name}")
    judge = Mortal()
    for (query, candidates), answers in zip(
        questions, answers_of_all(judge, questions), strict=True
    ):
        for candidate, answer, true in zip(
            candidates, answers, truth(query, candidates), strict=True
        ):
            if "lethal" in candidate.text:
                assert isinstance(answer, PairError)
                assert answer.code == "kills_judge"
            else:
                assert answer == true
    assert max(judge.deaths.values()) <= MOST


def test_a_candidate_that_always_kills_the_judge_is_no_longer_requested():
    """The queries run one after the other.

    The first query causes four deaths, the next two queries one each, and later queries none.
    """
    judge = Mortal()

    async def ask():
        async with JudgeClient(
            "http://judge", transport=httpx2.ASGITransport(app_of(judge))
        ) as client:
            return [
                await client.judge(Content(f"query {n}"), [Content("b"), LETHAL]) for n in range(6)
            ]

    answers = asyncio.run(ask())
    assert all(
        isinstance(verdict, Verdict) and error.code == "kills_judge" for verdict, error in answers
    )
    assert list(judge.deaths.values()) == [MOST] + [1] * (KILLS - 1)
    assert (
        "the judge died of this candidate with 3 other queries. Leave it out"
        in answers[-1][1].message
    )


@pytest.mark.parametrize("candidates", [1, 5])
def test_a_query_that_kills_is_refused_and_no_candidate_is_blamed(candidates):
    """This also holds if the query takes several requests: the deaths of the first request are enough."""
    judge = Mortal()
    others = [Content(f"candidate {n}") for n in range(candidates)]
    questions = [(Content(f"lethal query {n}"), others) for n in range(KILLS)]
    for outcome in answers_of_all(judge, questions, max_candidates=2):
        assert isinstance(outcome, JudgeKilled)
        assert str(outcome).startswith("the query: ")
    by_query = Counter()
    for (query, _), number in judge.deaths.items():
        by_query[query] += number
    assert max(by_query.values()) <= MOST
    # The same candidates get their verdicts with another query.
    assert answers_of_all(judge, [(Content("sound"), others)]) == [truth(Content("sound"), others)]


def test_a_list_that_kills_is_an_error_and_others_get_their_choice():
    judge = Mortal()
    questions = [
        (Content(f"query {n}"), [Content("b"), LETHAL if n == 3 else Content("c")])
        for n in range(8)
    ]
    found = answers_of_all(judge, questions, "choose")
    assert found.pop(3).code == "kills_judge"
    assert all(isinstance(choice, ListVerdict) for choice in found)
    assert judge.deaths.total() == 3


def test_one_or_two_deaths_beside_a_request_do_not_change_its_answer():
    """The judge dies by itself, independent of the requests. Every pair has its verdict."""
    judge = Mortal(seconds=0.01)
    questions = [(Content(f"query {n}"), [Content("b"), Content("c")]) for n in range(40)]

    async def ask():
        async with JudgeClient(
            "http://judge", transport=httpx2.ASGITransport(app_of(judge)), first=16
        ) as client:
            asking = asyncio.gather(*(client.judge(*one) for one in questions))
            for _ in range(2):
                await asyncio.sleep(0.015)
                for one in judge.inside:
                    if not one.done():
                        one.set_exception(JudgeDied("killed by a person"))
            return await asking

    assert asyncio.run(ask()) == [truth(*one) for one in questions]
