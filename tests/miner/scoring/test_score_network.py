"""A scoring job over a bad network: late answers are not lost, and no score is written twice."""

import threading

import pytest

from bench.bad_network import BadNetwork
from judge_service.backends.scripted import ScriptedJudge
from miner.scoring.job import score
from tests.miner.conftest import quiet, serving
from unijudge.formats.scores import read_scores
from unijudge.judging.prompt import Prompt


def reset_at_one_piece_of_twenty(network):
    network.lose(0.05)


def slow(network):
    network.slow_down(40_000)


def cut_for_a_second(network):
    network.cut()
    threading.Timer(1, network.mend).start()


@pytest.mark.parametrize("fault", [reset_at_one_piece_of_twenty, slow, cut_for_a_second])
def test_a_job_over_a_bad_network_has_the_same_scores(tmp_path, corpus, job, fault):
    with (
        serving(ScriptedJudge(Prompt(), delay_s=0.01)) as url,
        BadNetwork(int(url.rpartition(":")[2])) as network,
    ):
        score(job(url, out=tmp_path / "good"), quiet)
        fault(network)
        done = score(job(network.url, retry_for_s=30), quiet)
        resets = network.resets
    assert done.counts.errors == 0
    assert list(read_scores(tmp_path / "scores")) == list(read_scores(tmp_path / "good"))
    assert resets or fault is not reset_at_one_piece_of_twenty, "the network was good"
