"""vLLM against transformers on the same tiny model: the scores of the service equal the model's own.

The tests need vLLM's CPU build, which is optional. Without it, only this folder is skipped.
"""

import asyncio
import random
from functools import partial

import pytest

from judge_service.settings import EngineSettings
from tests.contents import CONTENTS
from tests.vllm.parity import gap, load
from unijudge.content import Content
from unijudge.errors import JudgeDied, JudgeRefused, JudgeUnavailable, ModelError
from unijudge.judging.prompt import LONGEST_LIST, Prompt
from unijudge.judging.verdicts import PairError, Verdict

pytest.importorskip("vllm")

TOLERANCE = 1e-4
"""In log-odds, float32."""


@pytest.fixture(scope="module")
def vllm(tiny_model):
    return load(tiny_model, "vllm")


@pytest.fixture(scope="module")
def reference(tiny_model):
    return load(tiny_model, "transformers")


@pytest.fixture(scope="module")
def alone(reference):
    """The scores of every pair, one pair at a time."""

    async def score():
        return {(q, c): (await reference.judge(q, [c]))[0] for q in CONTENTS for c in CONTENTS}

    return asyncio.run(score())


def test_all_ways_give_the_models_own_scores(vllm, reference, alone):
    """transformers with a shared prefix, and vLLM, give the scores of one pair at a time."""
    assert len(alone) >= 200
    for name, judge in [("transformers, shared prefix", reference), ("vLLM", vllm)]:
        largest = 0.0
        mass = 0.0
        for query in CONTENTS:
            verdicts = asyncio.run(judge.judge(query, CONTENTS))
            largest = max(largest, gap(verdicts, alone, [(query, c) for c in CONTENTS]))
            mass = max(
                mass,
                *(
                    abs(v.mass / alone[query, c].mass - 1)
                    for v, c in zip(verdicts, CONTENTS, strict=True)
                ),
            )
            assert all(
                v.argmax_is_label == alone[query, c].argmax_is_label
                for v, c in zip(verdicts, CONTENTS, strict=True)
            )
        print(
            f"{name}: {len(alone)} pairs, largest difference {largest:.1e} in log-odds, {mass:.1e} relative in mass"
        )
        assert largest < TOLERANCE
        assert mass < TOLERANCE


def test_order_other_pairs_and_cache_do_not_change_a_score(vllm, alone):
    """A pair is scored alone, in a batch of 64 pairs from many queries at once, in another order, again while it is
    cached, and after other work.
    """
    pairs = random.Random(0).sample(list(alone), 64)

    async def at_once():
        return [v for (v,) in await asyncio.gather(*(vllm.judge(q, [c]) for q, c in pairs))]

    async def one_by_one():
        return [(await vllm.judge(q, [c]))[0] for q, c in pairs]

    for schedule in (at_once, at_once, one_by_one, at_once):
        assert gap(asyncio.run(schedule()), alone, pairs) < TOLERANCE
        asyncio.run(vllm.judge(Content(text="something else " * 20), CONTENTS))


def test_an_evicted_cache_changes_no_score(tiny_model, alone, monkeypatch):
    """The cache has 24 blocks. The prefix of a query is in the cache at once, and is evicted after other work."""
    import vllm as engine

    monkeypatch.setattr(engine, "LLM", partial(engine.LLM, num_gpu_blocks_override=24))
    judge = load(tiny_model, "vllm", max_tokens=512)

    def reused(query):
        before = judge.cached_tokens
        verdicts = [asyncio.run(judge.judge(query, [candidate]))[0] for candidate in CONTENTS[:3]]
        assert gap(verdicts, alone, [(query, candidate) for candidate in CONTENTS[:3]]) < TOLERANCE
        return judge.cached_tokens - before

    query = CONTENTS[3]
    reused(query)
    warm = reused(query)
    for other in range(30):
        asyncio.run(judge.judge(Content(text=f"{other} something else " * 12), CONTENTS[:1]))
    assert warm >= 3 * 64
    assert reused(query) < warm


def test_the_model_cannot_change_the_sampling(tiny_model, alone, tmp_path):
    """A generation_config with a penalty and a temperature, as in published models, does not change the scores."""
    import json
    import shutil

    shutil.copytree(tiny_model, tmp_path / "tiny")
    path = tmp_path / "tiny" / "generation_config.json"
    config = json.loads(path.read_text()) | {
        "repetition_penalty": 1.05,
        "temperature": 0.1,
        "do_sample": True,
        "top_k": 1,
    }
    path.write_text(json.dumps(config))
    judge = load(tmp_path / "tiny", "vllm")
    pairs = [(CONTENTS[0], c) for c in CONTENTS]
    verdicts = asyncio.run(judge.judge(CONTENTS[0], CONTENTS))
    assert gap(verdicts, alone, pairs) < TOLERANCE


def test_a_list_has_the_models_own_numbers(vllm, reference):
    """Lists of two to nine mixed candidates, with ten pictures in the largest list.

    The lists run after other work, and while they are cached.
    """
    largest = 0.0
    lists = [(CONTENTS[start], CONTENTS[start : start + 2 + start % 8]) for start in range(10)]
    lists.append((CONTENTS[-1], [content for content in CONTENTS if content.image][:LONGEST_LIST]))
    for query, candidates in lists * 2:
        served, exact = (
            asyncio.run(judge.choose(query, candidates)) for judge in (vllm, reference)
        )
        assert served.place == exact.place
        assert len(served.logprobs) == len(candidates)
        largest = max(
            largest, *(abs(s - e) for s, e in zip(served.logprobs, exact.logprobs, strict=True))
        )
    print(f"vLLM: {2 * len(lists)} lists, largest difference {largest:.1e} in log-probability")
    assert largest < TOLERANCE


def test_bad_lists_are_errors(vllm):
    broken, long = (
        asyncio.run(vllm.choose(CONTENTS[0], [CONTENTS[0], bad]))
        for bad in (Content(image=b"junk"), Content(text="word " * 2000))
    )
    assert (broken.code, long.code) == ("bad_image", "too_long")
    with pytest.raises(JudgeRefused, match="query: not a JPEG"):
        asyncio.run(vllm.choose(Content(image=b"junk"), CONTENTS[:2]))


def test_bad_pairs_get_errors_at_their_positions(vllm, alone):
    candidates = [CONTENTS[0], Content(image=b"junk"), Content(text="word " * 2000), CONTENTS[1]]
    answers = asyncio.run(vllm.judge(CONTENTS[0], candidates))
    assert [type(answer) for answer in answers] == [Verdict, PairError, PairError, Verdict]
    assert [answers[1].code, answers[2].code] == ["bad_image", "too_long"]
    with pytest.raises(JudgeRefused, match="query: not a JPEG"):
        asyncio.run(vllm.judge(Content(image=b"junk"), candidates))


def test_the_longest_pair_is_not_cut(vllm):
    """A prompt of exactly max_tokens is scored. One more token is refused."""

    def pair(words):
        return Content(text="x" * words)

    base = vllm._inputs.model.length(
        vllm._inputs.renderer.streams(Content(text="q"), [Content(text="")])[0]
    )
    lengths = {}
    for words in range(1024 - base - 5, 1024 - base + 5):
        (stream,) = vllm._inputs.renderer.streams(Content(text="q"), [pair(words)])
        lengths[vllm._inputs.model.length(stream)] = pair(words)
    fits, exceeds = asyncio.run(vllm.judge(Content(text="q"), [lengths[1024], lengths[1025]]))
    assert isinstance(fits, Verdict)
    assert exceeds.code == "too_long"


def test_callers_that_leave_do_not_affect_others(vllm, alone):
    """A third of the requests are cancelled while they run. Other requests use the same pictures."""
    pairs = [(q, c) for q in CONTENTS[6:11] for c in CONTENTS]

    async def storm():
        tasks = [asyncio.create_task(vllm.judge(q, [c])) for q, c in pairs]
        await asyncio.sleep(0.05)
        for task in tasks[::3]:
            task.cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    for _ in range(3):
        for outcome, pair in zip(asyncio.run(storm()), pairs, strict=True):
            if not isinstance(outcome, asyncio.CancelledError):
                assert gap(outcome, alone, [pair]) < TOLERANCE
    assert (
        gap(
            asyncio.run(vllm.judge(CONTENTS[0], CONTENTS)),
            alone,
            [(CONTENTS[0], c) for c in CONTENTS],
        )
        < TOLERANCE
    )
    assert not vllm._engine._waiting


def test_bfloat16_differs_within_a_known_tolerance(tiny_model, alone):
    judge = load(tiny_model, "vllm", dtype="bfloat16")
    differences = sorted(
        abs(v.log_odds - alone[q, c].log_odds)
        for q in CONTENTS
        for v, c in zip(asyncio.run(judge.judge(q, CONTENTS)), CONTENTS, strict=True)
    )
    print(
        f"bfloat16: largest {differences[-1]:.3f}, 99th percentile {differences[int(0.99 * len(differences))]:.3f}"
    )
    assert differences[-1] < 0.5
    assert differences[-1] > TOLERANCE, "bfloat16 that equals float32 is float32"


def test_a_prompt_that_the_engine_refuses_costs_one_pair(vllm, alone, monkeypatch):
    """This holds for any error of vLLM about one prompt. The engine and the other pairs continue."""
    add = vllm._engine._engine.add_request
    calls = iter(range(100))

    def refuse_the_second(*arguments):
        if next(calls) == 1:
            raise LookupError("the test does not like it")
        return add(*arguments)

    monkeypatch.setattr(vllm._engine._engine, "add_request", refuse_the_second)
    answers = asyncio.run(vllm.judge(CONTENTS[0], CONTENTS[:3]))
    assert [type(answer) for answer in answers] == [Verdict, PairError, Verdict]
    assert answers[1].message == "LookupError: the test does not like it"
    assert (
        gap(
            [answers[0], answers[2]],
            alone,
            [(CONTENTS[0], CONTENTS[0]), (CONTENTS[0], CONTENTS[2])],
        )
        < TOLERANCE
    )


def test_a_missing_device_is_refused(tiny_model):
    with pytest.raises(
        ModelError,
        match="the settings request a GPU, and this process sees none: torch is a CPU build",
    ):
        load(tiny_model, "vllm", device="cuda")


def test_a_dead_engine_is_reported_at_once(tiny_model):
    judge = load(tiny_model, "vllm", max_num_seqs=4)

    def die():
        raise RuntimeError("killed by the test")

    judge._engine._engine.step = die
    for kind in (
        JudgeDied,
        JudgeUnavailable,
    ):  # errors of running requests, and errors of later requests
        with pytest.raises(
            JudgeUnavailable, match=r"the engine has died.*killed by the test"
        ) as raised:
            asyncio.run(
                asyncio.wait_for(judge.judge(Content(text="a"), [Content(text="b")] * 3), 20)
            )
        assert raised.type is kind


def test_the_identity_names_the_engine(vllm, reference):
    import vllm as engine

    assert vllm.identity.backend_version == engine.__version__ == "0.32.0"
    assert vllm.identity.digest != reference.identity.digest
    assert vllm.identity.weights == reference.identity.weights
    assert vllm.identity.prompt_fingerprint == Prompt().fingerprint


def test_additional_arguments_reach_the_engine(tiny_model, alone):
    """Two images are enough for a pair, and too few for a list of three pictures. The scores are the same."""
    engine = EngineSettings(
        multiprocessing=False, limit_mm_per_prompt={"image": 2}, enable_chunked_prefill=True
    )
    judge = load(tiny_model, "vllm", engine=engine)
    assert judge.identity.engine == "none"
    query = CONTENTS[0]
    verdicts = asyncio.run(judge.judge(query, CONTENTS))
    assert gap(verdicts, alone, [(query, candidate) for candidate in CONTENTS]) < TOLERANCE
    pictures = [content for content in CONTENTS if content.image][:3]
    refused = asyncio.run(judge.choose(query, pictures))
    assert isinstance(refused, PairError)
    assert refused.code == "refused"
