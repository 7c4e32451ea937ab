"""Batches of rows: every row once in an epoch, for any number of processes. Prefetched work keeps its order."""

import threading
from collections import Counter
from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.data.prefetch import prefetch
from trainer.data.sampler import BatchSampler

groups = st.lists(st.integers(0, 3), min_size=1, max_size=40).map(np.array)
sizes = st.integers(1, 7)


@given(groups, sizes, st.integers(0, 5))
def test_every_row_once_an_epoch_in_batches_of_one_group(groups, size, seed):
    """An update has one batch, so an epoch has as many updates as batches. Each epoch uses each row once."""
    order = BatchSampler(groups, batch_size=size, accumulation_steps=1, seed=seed)
    length = sum(-(-count // size) for count in Counter(groups.tolist()).values())
    for epoch in range(2):
        batches = [order.batches(1 + epoch * length + step)[0] for step in range(length)]
        assert sorted(np.concatenate(batches)) == list(range(len(groups)))
        assert all(len(rows) <= size and len(set(groups[rows])) == 1 for rows in batches)


@given(groups, sizes, st.integers(1, 5), st.integers(1, 20))
def test_updates_only_cut_the_same_row_of_batches(groups, size, accumulation_steps, step):
    one = BatchSampler(groups, batch_size=size, accumulation_steps=1, seed=0)
    many = BatchSampler(groups, batch_size=size, accumulation_steps=accumulation_steps, seed=0)
    expected = [
        one.batches(1 + (step - 1) * accumulation_steps + place)[0].tolist()
        for place in range(accumulation_steps)
    ]
    assert [rows.tolist() for rows in many.batches(step)] == expected


def test_epochs_and_seeds_shuffle():
    rows = [
        BatchSampler(np.zeros(50, int), batch_size=50, accumulation_steps=1, seed=s).batches(e)[0]
        for s in (0, 1)
        for e in (1, 2)
    ]
    assert len({tuple(one) for one in rows}) == 4
    order = BatchSampler(np.zeros(50, int), batch_size=1, accumulation_steps=2, seed=0)
    assert len({order.dice(step, place) for step in range(1, 9) for place in range(2)}) == 16
    assert order.dice(3, 1) == BatchSampler(
        np.zeros(9, int), batch_size=4, accumulation_steps=8, seed=0
    ).dice(3, 1)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_prefetched_work_keeps_its_order_and_is_bounded(workers):
    """The third job waits for an event of the first job.

    With threads the jobs overlap, and their order stays the same.
    """
    taken, gate = [], threading.Event()

    def jobs():
        for job in range(100):
            taken.append(job)
            yield job

    def prepare(job):
        if job == 0 and workers > 1:
            assert gate.wait(10)
        if job == 1:
            gate.set()
        return job * 10

    stream = prefetch(jobs(), prepare, workers)
    assert list(islice(stream, 5)) == [(job, job * 10) for job in range(5)]
    assert len(taken) <= 5 + 2 * workers
    stream.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]


def test_an_error_is_raised_at_the_position_of_its_result():
    def prepare(job):
        return 1 / job

    stream = prefetch([1, 2, 0, 4], prepare, 2)
    assert [next(stream)[1], next(stream)[1]] == [1, 0.5]
    with pytest.raises(ZeroDivisionError):
        next(stream)
