"""The queue of a replica: its order, estimated waits, deadlines, and its closing."""

import asyncio

import pytest

from judge_service.front.admission import Admission, Closed, Overloaded, TooLate


class Clock:
    """A clock that moves only when the test moves it."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr("judge_service.front.admission._now", lambda: self.now)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def queue(slots=1, max_waiting=100, max_wait_s=10.0):
    return Admission(slots=slots, max_waiting=max_waiting, max_wait_s=max_wait_s)


async def settled():
    for _ in range(5):
        await asyncio.sleep(0)


async def measured(admission, clock, *, work, seconds):
    """Tells the queue the time of a unit of work."""
    async with admission.turn(work, 1000):
        clock.now += seconds


class Held:
    """A request that runs until the test releases it."""

    def __init__(self, admission, name, order, *, work=1.0, patience_s=1000.0, alone=False):
        self.end = asyncio.Event()
        self.task = asyncio.create_task(self._run(admission, name, order, work, patience_s, alone))

    async def _run(self, admission, name, order, work, patience_s, alone):
        async with admission.turn(work, patience_s, alone=alone):
            order.append(name)
            await self.end.wait()


def test_all_slots_work_and_other_requests_wait_in_order():
    async def story():
        admission, order = queue(slots=2), []
        requests = [Held(admission, name, order) for name in "abcd"]
        await settled()
        begun = list(order)
        for request in requests:
            request.end.set()
            await settled()
        await asyncio.gather(*(request.task for request in requests))
        return begun, order

    assert asyncio.run(story()) == (["a", "b"], ["a", "b", "c", "d"])


def test_a_wait_is_estimated_from_the_work_ahead(clock):
    """A unit takes 0.5 s.

    Each of two slots has run 10 units for 1 s, so 4 s remain in each, and 8 units wait: (4 + 4 + 4) / 2 = 6 s.
    """

    async def story():
        admission = queue(slots=2, max_wait_s=7)
        await measured(admission, clock, work=4, seconds=2)
        requests = [
            Held(admission, name, [], work=work) for name, work in (("a", 10), ("b", 10), ("c", 8))
        ]
        await settled()
        clock.now += 1
        admission.check(1000)
        admission.check(6.0)
        with pytest.raises(
            Overloaded, match="1 requests wait, and a new request would wait about 6 s"
        ) as refusal:
            admission.check(5.9)
        assert refusal.value.retry_after_s == 1
        assert not refusal.value.is_full, "who waits longer is taken"
        with pytest.raises(Overloaded) as refusal:  # the request's own 4 units take 2 s
            async with admission.turn(4, 5.5):
                pass
        assert (
            refusal.value.retry_after_s == 3
        )  # in 2.5 s, the estimated wait falls from 6 s to 3.5 s
        for request in requests:
            request.task.cancel()

    asyncio.run(story())


def test_no_request_waits_longer_than_the_setting(clock):
    async def story():
        admission = queue(max_wait_s=3)
        await measured(admission, clock, work=1, seconds=2)
        first = Held(admission, "a", [])
        await settled()
        admission.check(1000)  # a wait of 2 s
        second = Held(admission, "b", [])
        await settled()
        with pytest.raises(Overloaded) as refusal:  # a wait of 4 s
            admission.check(1000)
        assert refusal.value.is_full
        first.task.cancel()
        second.task.cancel()

    asyncio.run(story())


def test_an_idle_queue_accepts_a_request_that_it_estimates_as_too_slow(clock):
    """Otherwise, one slow moment would make the queue refuse requests forever."""

    async def story():
        admission = queue()
        await measured(admission, clock, work=1, seconds=500)
        admission.check(1)
        await measured(admission, clock, work=1, seconds=0.1)

    asyncio.run(story())


def test_the_number_of_waiting_requests_is_limited():
    async def story():
        admission = queue(max_waiting=1)
        requests = [Held(admission, name, []) for name in "ab"]
        await settled()
        with pytest.raises(Overloaded, match="1 requests wait"):
            admission.check(1000)
        requests[0].end.set()
        await settled()
        admission.check(1000)
        requests[1].task.cancel()

    asyncio.run(story())


def test_work_stops_at_the_timeout_of_its_request():
    async def story():
        admission, reached = queue(), []

        async def late(name):
            async with admission.turn(0, 0.02):
                reached.append(name)
                await asyncio.sleep(60)

        with pytest.raises(TooLate, match=r"not answered within 0\.02 s"):
            await late("begun")
        first = Held(admission, "a", [], work=0)
        await settled()
        with pytest.raises(TooLate, match="the queue did not move in time"):
            await late("never begun")
        first.end.set()
        await first.task
        return reached

    assert asyncio.run(story()) == ["begun"]


def test_an_error_of_the_work_itself_passes_and_frees_its_slot():
    async def story():
        admission = queue()
        for error in (TimeoutError("of the engine"), ValueError("x")):
            with pytest.raises(type(error), match=str(error)):
                async with admission.turn(1, 1000):
                    raise error
        admission.check(0.001)

    asyncio.run(story())


def test_a_cancelled_request_gives_its_slot_to_the_next_request():
    async def story():
        admission, order = queue(), []
        requests = [Held(admission, name, order) for name in "abc"]
        await settled()
        requests[1].task.cancel()
        requests[0].task.cancel()
        await settled()
        requests[2].end.set()
        await requests[2].task
        return order

    assert asyncio.run(story()) == ["a", "c"]


def test_closing_refuses_waiting_requests_and_finishes_running_ones():
    async def story():
        admission, order = queue(), []
        requests = [Held(admission, name, order) for name in "abc"]
        await settled()
        admission.close()
        await settled()
        with pytest.raises(Closed):
            admission.check(1000)
        requests[0].end.set()
        ends = await asyncio.gather(*(request.task for request in requests), return_exceptions=True)
        return order, [type(end) for end in ends]

    assert asyncio.run(story()) == (["a"], [type(None), Closed, Closed])


def test_an_exclusive_request_waits_for_running_requests_and_delays_later_ones():
    async def story():
        admission, order = queue(slots=2), []
        requests = [Held(admission, name, order, alone=name in "cd") for name in "abcdefg"]
        await settled()
        begun = [list(order)]
        for request in requests:
            request.end.set()
            await settled()
            begun.append(list(order))
        return ["".join(names) for names in begun]

    # Two requests run, then one of them, then c alone, then d alone, then two requests again.
    assert asyncio.run(story()) == [
        "ab",
        "ab",
        "abc",
        "abcd",
        "abcdef",
        "abcdefg",
        "abcdefg",
        "abcdefg",
    ]


def test_an_exclusive_request_counts_for_all_slots(clock):
    """A unit takes 1 s.

    An exclusive request of 4 units uses both slots, and 2 units wait for a slot: (4 × 2 + 2) / 2 = 5 s.
    """

    async def story():
        admission = queue(slots=2)
        await measured(admission, clock, work=1, seconds=1)
        requests = [Held(admission, "a", [], work=4, alone=True), Held(admission, "b", [], work=2)]
        await settled()
        admission.check(5.0)
        with pytest.raises(Overloaded, match="about 5 s"):
            admission.check(4.9)
        for request in requests:
            request.task.cancel()

    asyncio.run(story())


def test_a_cancelled_exclusive_request_delays_no_other_request():
    async def story():
        admission, order = queue(slots=2), []
        requests = [Held(admission, name, order, alone=name == "b") for name in "abc"]
        await settled()
        before = list(order)
        requests[1].task.cancel()
        await settled()
        requests[0].task.cancel()
        requests[2].task.cancel()
        return before, order

    assert asyncio.run(story()) == (["a"], ["a", "c"])
