"""The number of requests in flight: when it rises and is halved, which requests wait, and that no slot is ever lost."""

import asyncio
import random

import pytest

from tests import virtual_time
from unijudge.client.concurrency import AdaptiveLimit


def limit_of(ceiling, first, timeout_s=100):
    return AdaptiveLimit(ceiling, first=first, timeout_s=timeout_s)


async def taken(limit, number):
    """Returns this number of requests that were just sent."""
    places = [limit.place() for _ in range(number)]
    for place in places:
        await place.take()
    return places


async def leave(*places):
    for place in places:
        await place.__aexit__(None, None, None)


@pytest.fixture
def rounds(monkeypatch):
    """Returns the number in flight in each round trip, while more requests wait.

    The service answers or refuses a whole round. A round trip takes a second, or `seconds` of the number in flight.
    """

    def sizes(limit, requests, refused=(), seconds=lambda in_flight: 1):
        in_flight = []

        async def request():
            async with limit.place() as place:
                is_answered = False
                while not is_answered:
                    await place.take()
                    future = asyncio.get_running_loop().create_future()
                    in_flight.append(future)
                    is_answered = await future
                    if is_answered:
                        place.answered()
                    else:
                        place.refused()

        async def run():
            tasks, sizes = [asyncio.create_task(request()) for _ in range(requests)], []
            while not all(task.done() for task in tasks):
                await asyncio.sleep(0.001)
                sizes.append(len(in_flight))
                await asyncio.sleep(seconds(len(in_flight)))
                for future in in_flight:
                    future.set_result(len(sizes) not in refused)
                in_flight.clear()
            return sizes[:-1]

        return virtual_time.run(run(), monkeypatch)

    return sizes


def test_until_the_first_refusal_each_round_of_answers_doubles_the_limit(rounds):
    assert rounds(limit_of(40, 4), 130) == [4, 8, 16, 32, 40, 30]


def test_after_a_refusal_the_limit_halves_and_each_round_adds_one(rounds):
    refused = [4, 8]
    assert rounds(limit_of(40, 4), 122, refused) == [4, 8, 16, 32, 16, 17, 18, 19, 9, 10, 11, 12, 1]


def test_when_requests_begin_to_wait_the_limit_no_longer_doubles(rounds):
    """Sixteen requests run at once in a second.

    32 take two seconds, which is not more than twice as long, and 64 take four. The first three rounds raise the limit,
    and the fourth round ends the doubling.
    """
    sizes = rounds(limit_of(200, 4), 328, seconds=lambda in_flight: max(1, in_flight / 16))
    assert sizes == [4, 8, 16, 32, 64, 67, 68, 69]


def test_slow_answers_do_not_raise_the_limit_and_end_the_doubling(rounds):
    """A request that already waits for a quarter of its time must not wait behind more requests."""
    seconds = iter([26, 24, 24, 26, 24, 24, 24, 24, 24])
    sizes = rounds(limit_of(200, 4), 40, seconds=lambda in_flight: next(seconds))
    assert sizes == [4, 4, 5, 6, 6, 7, 8]


def test_refusals_of_one_round_halve_the_limit_once():
    async def numbers():
        limit, seen = limit_of(64, 16), []
        for _ in range(6):
            places = await taken(limit, limit.number)
            for place in places:
                place.refused()
                seen.append(limit.number)
            await leave(*places)
        return seen

    assert asyncio.run(numbers()) == [8] * 16 + [4] * 8 + [2] * 4 + [1] * 2 + [1] + [1]


def test_answers_to_requests_before_a_refusal_do_not_raise_the_limit():
    async def numbers():
        limit = limit_of(64, 16)
        places = await taken(limit, 16)
        places[0].refused()
        for place in places:
            place.answered()
        seen = [limit.number]
        await leave(*places)
        places = await taken(limit, 8)
        for place in places:
            place.answered()
            seen.append(limit.number)
        return seen

    assert asyncio.run(numbers()) == [8] + [8] * 7 + [9]


def test_answers_do_not_raise_the_limit_while_slots_are_free():
    """Otherwise a quiet hour would raise the limit without bound."""

    async def number():
        limit = limit_of(64, 4)
        (place,) = await taken(limit, 1)
        for _ in range(100):
            place.answered()
        return limit.number

    assert asyncio.run(number()) == 4


def test_a_refusal_halves_the_number_in_flight_not_the_limit():
    async def number():
        limit = limit_of(64, 64)
        places = await taken(limit, 10)
        places[0].refused()
        return limit.number

    assert asyncio.run(number()) == 5


def test_a_refused_request_keeps_its_slot_until_its_retry_and_then_queues():
    async def order():
        limit, came = limit_of(4, 1), []

        async def request(name):
            async with limit.place() as place:
                await place.take()
                came.append(name)

        async with limit.place() as refused:
            await refused.take()
            others = [asyncio.create_task(request(name)) for name in ("second", "third")]
            refused.refused()
            await asyncio.sleep(0.05)
            came.append("comes back")
            await refused.take()
            came.append("first")
        await asyncio.gather(*others)
        return came

    assert asyncio.run(order()) == ["comes back", "second", "third", "first"]


def test_after_a_halving_nothing_is_sent_until_few_enough_are_left():
    async def left():
        limit = limit_of(8, 8)
        first, *others = await taken(limit, 8)
        first.refused()
        back = asyncio.create_task(first.take())
        seen = []
        for place in others:
            await asyncio.sleep(0.01)
            seen.append((limit.taken, back.done()))
            await leave(place)
        await back
        return seen

    # Four requests may be in flight. Seven are in flight when the first one is retried. It is sent when three are left.
    assert asyncio.run(left()) == [
        (7, False),
        (6, False),
        (5, False),
        (4, False),
        (4, True),
        (3, True),
        (2, True),
    ]


@pytest.mark.parametrize("seed", range(20))
def test_no_slot_is_ever_lost_or_added(seed):
    """Answers, refusals, failures and clients that leave come at any moment."""
    dice = random.Random(seed)
    ceiling = dice.randint(1, 30)
    limit = limit_of(ceiling, dice.randint(1, 30))
    most = sent = 0

    async def request():
        nonlocal most, sent
        async with limit.place() as place:
            while True:
                await place.take()
                sent += 1
                most = max(most, limit.taken)
                await asyncio.sleep(dice.random() / 1000)
                match dice.choice(["answered", "answered", "refused", "failed"]):
                    case "answered":
                        place.answered()
                        return
                    case "refused":
                        place.refused()
                        await asyncio.sleep(dice.random() / 1000)
                    case "failed":
                        raise ValueError

    async def run():
        tasks = [asyncio.create_task(request()) for _ in range(200)]
        while not all(task.done() for task in tasks):
            await asyncio.sleep(dice.random() / 1000)
            dice.choice(tasks).cancel()
        assert limit.taken == 0
        places = await asyncio.wait_for(taken(limit, limit.number), 5)
        assert limit.taken == len(places) == limit.number >= 1

    asyncio.run(run())
    assert 1 <= most <= ceiling
    assert sent > 10
