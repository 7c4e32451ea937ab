"""bench/fairness.py: its index, compared with values computed by hand, and its counts of answers per client."""

import argparse
import asyncio

import pytest

from bench import fairness
from judge_service.backends.scripted import ScriptedJudge
from tests.miner.conftest import serving
from unijudge.judging.prompt import Prompt


@pytest.mark.parametrize(
    ("shares", "index"),
    [([5, 5, 5, 5], 1), ([8, 0, 0, 0], 1 / 4), ([3, 1], 16 / 20), ([7], 1)],
)
def test_jains_index(shares, index):
    assert fairness.jain(shares) == pytest.approx(index)


def test_each_client_is_counted(monkeypatch):
    monkeypatch.setattr(fairness, "WARM_UP_S", 0)
    options = argparse.Namespace(in_flight=2, candidates=3, seconds=3)
    with serving(ScriptedJudge(Prompt(), delay_s=0.01)) as url:
        found = asyncio.run(fairness.ask_all(url, 3, options))
    assert len(found) == 3
    for client in found:
        assert client.pairs > 0
        assert client.pairs % 3 == 0
        assert client.statuses["200"] >= client.pairs / 3
        assert set(client.statuses) <= {"200", "CancelledError"}
