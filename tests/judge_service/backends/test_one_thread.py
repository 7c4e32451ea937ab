"""Work for a client that has left never begins, or stops at its next step.

The work that was done still counts as progress.
"""

import asyncio
import gc
import threading
import time
import weakref

import pytest
import torch

from judge_service.backends.one_thread import OneThread
from judge_service.backends.rendering import Inputs
from judge_service.replica.health import ReplicaProgress
from tests.judge_service.backends.transformers_judge import load
from unijudge.content import Content
from unijudge.judging.verdicts import ListVerdict, Verdict

QUERY = Content(text="a query")
CANDIDATES = [Content(text=f"candidate {number} of eight") for number in range(8)]


class Gate:
    """Holds the first caller until the gate is opened."""

    def __init__(self):
        self.reached, self.opened = threading.Event(), threading.Event()

    def pass_through(self):
        self.reached.set()
        assert self.opened.wait(60)


async def until_idle(judge):
    """Waits until the thread has finished its earlier work."""
    await judge._thread.run(lambda caller: None)


@pytest.fixture(scope="module")
def judge(tiny_model):
    return load(tiny_model, batch_tokens=300)


@pytest.fixture
def held(judge, monkeypatch):
    """Holds the model's first forward pass with candidates. The second return value counts such passes."""
    gate, passes = Gate(), []
    forward = judge._logprobs_BV

    def counted(streams, cut, cache):
        passes.append(len(streams))
        if len(passes) == 1:
            gate.pass_through()
        return forward(streams, cut, cache)

    monkeypatch.setattr(judge, "_logprobs_BV", counted)
    return gate, passes


async def left_behind(coroutine, gate, way):
    """A client leaves while its request is held: its request is cancelled, or its time is over."""

    async def waits():
        async with asyncio.timeout(None) as patience:
            limits.append(patience)
            await coroutine

    limits = []
    task = asyncio.create_task(waits())
    assert await asyncio.to_thread(gate.reached.wait, 60)
    if way == "cancelled":
        task.cancel()
    else:
        limits[0].reschedule(asyncio.get_running_loop().time())
    with pytest.raises(asyncio.CancelledError if way == "cancelled" else TimeoutError):
        await task


@pytest.mark.parametrize("way", ["cancelled", "out of time"])
def test_running_work_for_a_client_that_left_stops_at_its_next_chunk(judge, held, way):
    gate, passes = held

    async def story():
        await left_behind(judge.judge(QUERY, CANDIDATES), gate, way)
        before = time.monotonic()
        assert judge.progressed_at < before
        gate.opened.set()
        await until_idle(judge)
        assert len(passes) == 1
        assert judge.progressed_at > before, "a chunk counts, whoever waits for it"
        return await judge.judge(QUERY, CANDIDATES)

    answers = asyncio.run(story())
    assert all(isinstance(answer, Verdict) for answer in answers)
    assert len(passes) > 3, "eight candidates are several chunks"


@pytest.mark.parametrize("ask", ["judge", "choose"])
def test_waiting_work_for_a_client_that_left_never_begins(judge, held, monkeypatch, ask):
    gate, _ = held
    prepared = []
    for name in ("prepare", "prepare_list"):
        method = getattr(Inputs, name)
        monkeypatch.setattr(
            Inputs, name, lambda *given, method=method: prepared.append(given) or method(*given)
        )

    async def story():
        first = asyncio.create_task(judge.judge(QUERY, CANDIDATES[:2]))
        await asyncio.to_thread(gate.reached.wait, 60)
        waiting = [
            asyncio.create_task(getattr(judge, ask)(QUERY, CANDIDATES[:3])) for _ in range(5)
        ]
        await asyncio.sleep(0)
        for task in waiting[:4]:
            task.cancel()
        await asyncio.wait(
            waiting[:4], timeout=60
        )  # until each request knows that its client has left
        gate.opened.set()
        return await first, await waiting[4]

    first, last = asyncio.run(story())
    assert all(isinstance(answer, Verdict) for answer in first)
    assert isinstance(last, ListVerdict) if ask == "choose" else len(last) == 3
    assert [len(candidates) for _, _, candidates in prepared] == [2, 3]


def test_a_list_whose_caller_left_while_it_was_prepared_is_not_run(judge, monkeypatch):
    gate, passes = Gate(), []
    prepare = Inputs.prepare_list
    monkeypatch.setattr(
        Inputs, "prepare_list", lambda *given: gate.pass_through() or prepare(*given)
    )
    monkeypatch.setattr(judge, "_logprobs_BV", lambda *_: passes.append(1))

    async def story():
        await left_behind(judge.choose(QUERY, CANDIDATES), gate, "cancelled")
        gate.opened.set()
        await until_idle(judge)

    asyncio.run(story())
    assert not passes


def test_a_list_counts_as_progress(judge):
    before = time.monotonic()
    assert isinstance(judge, ReplicaProgress)
    assert isinstance(asyncio.run(judge.choose(QUERY, CANDIDATES)), ListVerdict)
    assert before < judge.progressed_at < time.monotonic()


def test_before_its_first_answer_a_judge_has_not_progressed(tiny_model):
    assert load(tiny_model).progressed_at == float("-inf")


def test_the_memory_of_a_failed_batch_is_freed_before_its_halves_run(judge, monkeypatch):
    """Without this, a batch that was too large would leave no memory for a smaller batch."""
    whole, tried = judge._logprobs_BV, []

    def short(streams, cut, cache):
        assert all(held() is None for held in tried), "what was too large is still held"
        large = torch.zeros(3)
        if len(streams) > 1:
            tried.append(weakref.ref(large))
            raise RuntimeError(
                "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"
            )
        return whole(streams, cut, cache)

    monkeypatch.setattr(judge, "_logprobs_BV", short)
    gc.disable()
    try:
        answers = asyncio.run(judge.judge(QUERY, CANDIDATES[:4]))
    finally:
        gc.enable()
    assert tried
    assert all(isinstance(answer, Verdict) for answer in answers)


def test_work_can_check_whether_its_caller_left():
    thread, gate = OneThread("test"), Gate()
    steps = []

    def work(caller, name):
        for step in range(3):
            caller.check_waits()
            steps.append((name, step))
            gate.pass_through()

    async def story():
        task = asyncio.create_task(thread.run(work, "first"))
        await asyncio.to_thread(gate.reached.wait, 60)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        gate.opened.set()
        await thread.run(work, name="second")

    asyncio.run(story())
    assert steps == [("first", 0), ("second", 0), ("second", 1), ("second", 2)]


def test_an_error_of_the_work_reaches_its_caller():
    def fail(caller):
        raise LookupError("the test does not like it")

    with pytest.raises(LookupError, match="does not like it"):
        asyncio.run(OneThread("test").run(fail))
