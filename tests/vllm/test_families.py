"""Judges of other families than Qwen2.5-VL: vLLM against transformers, for every family that both support."""

import asyncio

import pytest

from tests.contents import CONTENTS
from tests.families import MAKERS
from tests.judge_service.backends.family_judge import load

pytest.importorskip("vllm")


@pytest.mark.parametrize("family", MAKERS)
def test_vllm_gives_the_models_own_scores(family, tmp_path):
    MAKERS[family](tmp_path / family)
    engine, reference = (
        load(tmp_path / family, family, backend) for backend in ("vllm", "transformers")
    )
    largest = 0.0
    for query in CONTENTS:
        served, exact = (asyncio.run(judge.judge(query, CONTENTS)) for judge in (engine, reference))
        largest = max(
            largest, *(abs(s.log_odds - e.log_odds) for s, e in zip(served, exact, strict=True))
        )
    listed = [
        asyncio.run(judge.choose(CONTENTS[-1], CONTENTS[4:9])) for judge in (engine, reference)
    ]
    largest = max(
        largest, *(abs(s - e) for s, e in zip(*(found.logprobs for found in listed), strict=True))
    )
    print(
        f"{family}: {len(CONTENTS) ** 2} pairs and a list, largest difference {largest:.1e} in log-odds"
    )
    assert largest < 1e-4
