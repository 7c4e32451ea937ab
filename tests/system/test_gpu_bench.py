"""`make gpu` with every engine that is installed: vLLM, and the service on Ray Serve. Tiny, on the CPU."""

import pytest

from tests.bench.test_gpu import OWN_PATH, measure, states

pytest.importorskip("vllm")


@pytest.mark.timeout(600)
def test_a_dry_run_with_engines(tmp_path):
    status, text, outcomes = measure(tmp_path, "--steps", "parity", "judge", "service")
    assert status == 0, text
    assert {name for name, state in states(outcomes).items() if state != "ok"} == {"judge/vllm-graphs"}
    assert "vLLM records graphs on a GPU only" in text
    assert "| verdict | the model's own scores |" in text
    assert not OWN_PATH.search(text)

    # vLLM computes at least what must be computed, and less than every prompt in full.
    for found in outcomes["judge"]["vllm"]["figures"]["scenarios"].values():
        assert found["pairs"] > 0
        assert found["tokens"] >= found["least_tokens"]
