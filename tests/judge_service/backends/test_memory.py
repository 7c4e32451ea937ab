"""If memory is short, transformers runs smaller batches. A pair that does not fit does not fail other pairs."""

import asyncio

import pytest
import torch

from tests.judge_service.backends.transformers_judge import load
from tests.pictures import png
from unijudge.content import Content
from unijudge.errors import JudgeRefused
from unijudge.judging.verdicts import PairError, Verdict

QUERY = Content("a query")
LARGE = png("red")
CANDIDATES = [Content("word " * number) for number in (1, 3, 60, 2, 4, 1, 2)]


@pytest.fixture
def judge(tiny_model):
    return load(tiny_model)


def short_of_memory(judge, monkeypatch, fits):
    """Torch refuses batches that do not fit into memory, as on a GPU."""
    whole = judge._logprobs_BV
    sizes = []

    def limited(streams, cut, cache):
        sizes.append(len(streams))
        if not fits(streams):
            raise torch.OutOfMemoryError(
                "Tried to allocate 2.00 GiB. GPU 0 has 1.1 GiB free. Of it. More"
            )
        return whole(streams, cut, cache)

    monkeypatch.setattr(judge, "_logprobs_BV", limited)
    return sizes


def test_smaller_batches_give_the_same_verdicts(judge, monkeypatch):
    expected = asyncio.run(judge.judge(QUERY, CANDIDATES))
    sizes = short_of_memory(judge, monkeypatch, lambda streams: len(streams) <= 2)
    found = asyncio.run(judge.judge(QUERY, CANDIDATES))
    assert sizes == [7, 3, 1, 2, 4, 2, 2]
    assert (
        max(abs(one.log_odds - other.log_odds) for one, other in zip(found, expected, strict=True))
        < 1e-4
    )


def test_a_pair_too_large_for_the_memory_gets_an_error(judge, monkeypatch):
    short_of_memory(judge, monkeypatch, lambda streams: max(map(len, streams)) < 120)
    found = asyncio.run(judge.judge(QUERY, CANDIDATES))
    assert [type(one) for one in found] == [
        Verdict,
        Verdict,
        PairError,
        Verdict,
        Verdict,
        Verdict,
        Verdict,
    ]
    assert found[2].code == "out_of_memory"
    assert found[2].message.startswith(
        "out of memory (Tried to allocate 2.00 GiB. GPU 0 has 1.1 GiB free"
    )
    assert "Lower model.max_pixels (now 12544)" in found[2].message


def test_a_query_too_large_for_the_memory_is_refused(judge, monkeypatch):
    def full(prefix):
        raise torch.OutOfMemoryError("Tried to allocate 2.00 GiB")

    monkeypatch.setattr(judge, "_prefix_cache", full)
    with pytest.raises(JudgeRefused, match=r"query: out of memory \(Tried to allocate 2.00 GiB\)"):
        asyncio.run(judge.judge(QUERY, CANDIDATES))


def test_a_picture_gets_an_error_if_memory_is_full_during_its_preparation(judge, monkeypatch):
    read = judge.inputs.model.pictures

    def short(data):
        if data == LARGE:
            raise MemoryError
        return read(data)

    monkeypatch.setattr(judge.inputs.model, "pictures", short)
    found = asyncio.run(
        judge.judge(QUERY, [Content(image=LARGE), Content(image=png("blue")), CANDIDATES[0]])
    )
    assert [type(one) for one in found] == [PairError, Verdict, Verdict]
    assert found[0].code == "out_of_memory"
