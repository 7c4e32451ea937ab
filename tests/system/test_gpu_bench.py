"""`make gpu` with every installed engine: vLLM, and the service on Ray Serve.

The models are tiny, and run on the CPU.
"""

import pytest

from bench.gpu import models, parity
from bench.gpu.case import outcome_of
from bench.gpu.options import Options
from tests.bench.gpu_measuring import OWN_PATH, measure, states

pytest.importorskip("vllm")


@pytest.mark.timeout(600)
def test_a_dry_run_with_engines(tmp_path):
    status, text, outcomes = measure(tmp_path, "--steps", "judge", "service")
    assert status == 0, text
    assert {name for name, state in states(outcomes).items() if state != "ok"} == {
        "judge/vllm-graphs"
    }
    assert "vLLM records graphs on a GPU only" in text
    assert "| verdict | the model's own scores |" in text
    assert not OWN_PATH.search(text)

    # vLLM computes at least the necessary tokens, and fewer tokens than all prompts have.
    for found in outcomes["judge"]["vllm"]["figures"]["scenarios"].values():
        assert found["pairs"] > 0
        assert found["tokens"] >= found["least_tokens"]


def test_every_vllm_case_is_compared_with_the_reference(tmp_path):
    """The cases run in this process, which has already imported vLLM.

    Another test shows that each case has its own process.
    """
    options = Options(
        dry_run=True, model="", size="3b", scratch=str(tmp_path), logs=str(tmp_path), limit_s=240
    )
    models.make_judge(options)
    outcomes = {name: outcome_of("parity", name, options) for name in parity.STEP.cases}
    assert {name: one.cause for name, one in outcomes.items() if one.state != "ok"} == {}
    (table,) = parity.tables(outcomes)
    rows = {row[0]: row[1:] for row in table.rows}
    assert {(pairs, lost) for pairs, lost, *_ in rows.values()} == {("28", "0")}
    assert float(rows["vLLM, float32"][2]) < 1e-4
    assert 0 < float(rows["vLLM, bfloat16, head in float32"][2]) < 0.5
    assert 0 < float(rows["vLLM, bfloat16, head in bfloat16"][2]) < 0.5
