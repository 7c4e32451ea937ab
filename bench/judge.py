"""Compares several ways of judging, with the same pairs and the same weights, each in a separate process.

    .venv/bin/python -m bench.judge          prints a Markdown table for each scenario

The model is a Qwen2.5-VL with 45 million parameters and random weights, in float32, with one thread per process. Ratios
and differences in log-odds are relative to transformers with one pair at a time. Before the measurement, every way
scores other pairs, so loading and compilation are not measured. The measured pairs are not in any cache.
"""

import asyncio
import contextlib
import io
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable

from PIL import Image

from bench.made_up import serving
from unijudge.content import Content
from unijudge.judging.verdicts import Judge, Verdict

Work = list[tuple[Content, list[Content]]]
UNTRAINED = {"health.min_label_mass": 0, "health.canary_every_s": 0}
MODEL = {"min_pixels": 3136, "max_pixels": 224 * 224, "max_tokens": 1024}
SCENARIOS = {
    "image → image, 12 candidates": (4, 12, True),
    "image → text, 50 candidates": (2, 50, False),
}
WAYS = {
    "one": "transformers, one pair at a time",
    "batched": "transformers, batches of 10",
    "prefix": "unijudge, transformers backend (shared prefix)",
    "offline": "vLLM offline, default options",
    "vllm": "unijudge, vLLM backend",
    "http": "unijudge, vLLM backend over HTTP (Ray Serve, 1 replica)",
}


def work(queries: int, candidates: int, *, images: bool, seed: int, side: int = 224) -> Work:
    """Returns generated queries with an image, and their candidates. Images are squares of `side` pixels."""
    dice = random.Random(seed)  # noqa: S311  reproducible, not secret

    def text(words: int) -> str:
        return " ".join(
            dice.choices(["red", "seven", "bridge", "a photo of", "under", "the table"], k=words)
        )

    def picture() -> bytes:
        out = io.BytesIO()
        Image.frombytes("RGB", (4, 4), dice.randbytes(48)).resize((side, side)).save(
            out, "PNG", compress_level=1
        )
        return out.getvalue()

    def candidate() -> Content:
        return Content(text(4), picture()) if images else Content(text(6))

    return [
        (Content(text(12), picture()), [candidate() for _ in range(candidates)])
        for _ in range(queries)
    ]


async def by_query(judge: Judge, todo: Work) -> list[float]:
    """Scores all queries at the same time, each with its candidates, as the miner does. Returns the log-odds."""
    answers = await asyncio.gather(*(judge.judge(query, candidates) for query, candidates in todo))
    return [
        verdict.log_odds for found in answers for verdict in found if isinstance(verdict, Verdict)
    ]


def settings(folder: str, backend: str):  # noqa: ANN201  a settings class, imported late
    """Returns the service's settings for this model."""
    from judge_service.settings import ModelSettings, ServiceSettings

    return ServiceSettings(model=ModelSettings(name=folder, backend=backend, **MODEL))


def run_transformers(
    way: str, folder: str
) -> tuple[Callable[[Work], Awaitable[list[float]]], Callable[[], float]]:
    """Opens one of the three ways that run transformers."""
    from judge_service.backends import open_judge
    from unijudge.modeling.chat_encoder import shared_prefix

    judge = open_judge(settings(folder, "transformers"))
    lengths: list[float] = []

    async def score(todo: Work) -> list[float]:
        found: list[float] = []
        lengths.clear()
        for query, candidates in todo:
            streams = judge._inputs.renderer.streams(query, candidates)
            whole = [judge._inputs.model.length(stream) for stream in streams]
            if way == "prefix":
                cut = judge._inputs.model.length(streams[0][: shared_prefix(streams)])
                lengths.extend(length - cut + cut / len(streams) for length in whole)
                found += await by_query(judge, [(query, candidates)])
                continue
            lengths.extend(whole)
            size = 1 if way == "one" else 10
            for start in range(0, len(streams), size):
                import torch

                with torch.inference_mode():
                    logprobs_BV = judge._logprobs_BV(streams[start : start + size], 0, None)
                yes, no = logprobs_BV[:, judge._labels].T.tolist()
                found += [y - n for y, n in zip(yes, no, strict=True)]
        return found

    return score, lambda: sum(lengths) / len(lengths)


def run_offline(
    folder: str,
) -> tuple[Callable[[Work], Awaitable[list[float]]], Callable[[], float]]:
    """Opens vLLM's `LLM.generate` on rendered prompts, with default options."""
    from judge_service.backends.engine_options import engine_plan
    from judge_service.backends.model_sizes import load_sizes
    from judge_service.backends.rendering import open_inputs
    from judge_service.gpus import current_gpu

    # The environment of our backend. On a GPU it makes vLLM spawn its process, because a fork would break CUDA.
    chosen = settings(folder, "vllm")
    plan = engine_plan(chosen, load_sizes(folder, None), current_gpu(required=False))
    for name, value in plan.environment.items():
        os.environ.setdefault(name, value)
    from vllm import LLM, SamplingParams

    inputs = open_inputs(chosen.model, chosen.prompt, chosen.limits)
    size = {"shortest_edge": MODEL["min_pixels"], "longest_edge": MODEL["max_pixels"]}
    engine = LLM(
        model=folder,
        dtype="float32",
        enforce_eager=True,
        max_model_len=1024,
        mm_processor_kwargs={"size": size},
    )
    labels = [inputs.renderer.yes_id, inputs.renderer.no_id]
    sampling = SamplingParams(max_tokens=1, temperature=0, logprob_token_ids=labels)
    computed: list[int] = []

    async def score(todo: Work) -> list[float]:
        prompts = []
        for query, candidates in todo:
            for stream in inputs.renderer.streams(query, candidates):
                images = [
                    inputs.model.pictures(entry).image
                    for entry in stream
                    if isinstance(entry, bytes)
                ]
                ids = inputs.model.placeholders(stream)
                prompts.append({"prompt_token_ids": ids, "multi_modal_data": {"image": images}})
        outputs = engine.generate(prompts, sampling, use_tqdm=False)
        computed[:] = [
            len(output.prompt_token_ids) - (output.num_cached_tokens or 0) for output in outputs
        ]
        first = [output.outputs[0].logprobs[0] for output in outputs]
        return [at[labels[0]].logprob - at[labels[1]].logprob for at in first]

    return score, lambda: sum(computed) / len(computed)


def run_vllm(folder: str) -> tuple[Callable[[Work], Awaitable[list[float]]], Callable[[], float]]:
    """Opens the vLLM backend of unijudge, in this process."""
    from judge_service.backends import open_judge

    judge = open_judge(settings(folder, "vllm"))
    computed = 0.0

    async def score(todo: Work) -> list[float]:
        nonlocal computed
        before = judge.prompt_tokens - judge.cached_tokens
        found = await by_query(judge, todo)
        computed = (judge.prompt_tokens - judge.cached_tokens - before) / len(found)
        return found

    return score, lambda: computed


def service_settings(folder: str) -> dict[str, object]:
    """Returns settings without health checks, because a model with random weights would fail them."""
    chosen: dict[str, object] = {f"model.{name}": value for name, value in MODEL.items()}
    chosen |= {"model.name": folder, "model.backend": "vllm", "front.max_ongoing_requests": 16}
    return chosen | UNTRAINED


async def measure(way: str, folder: str) -> dict[str, dict[str, object]]:
    """Measures one way in every scenario."""
    with contextlib.ExitStack() as stack:
        if way == "http":
            from unijudge.client.client import JudgeClient

            url = stack.enter_context(serving(service_settings(folder), start_s=180))

            async def score(todo: Work) -> list[float]:
                async with JudgeClient(url) as judge:
                    return await by_query(judge, todo)

            def computed() -> float:
                return float("nan")
        elif way == "vllm":
            score, computed = run_vllm(folder)
        elif way == "offline":
            score, computed = run_offline(folder)
        else:
            score, computed = run_transformers(way, folder)
        found: dict[str, dict[str, object]] = {}
        for name, (queries, candidates, images) in SCENARIOS.items():
            await score(work(1, candidates, images=images, seed=7))
            todo = work(queries, candidates, images=images, seed=1)
            begun = time.perf_counter()
            log_odds = await score(todo)
            seconds = time.perf_counter() - begun
            found[name] = {
                "pairs_per_s": len(log_odds) / seconds,
                "tokens": computed(),
                "log_odds": log_odds,
            }
        return found


def main() -> None:
    """Runs every way, one after another, and prints the tables."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = f"{scratch}/model"
        make = "from demo.tiny_model import make_model; from pathlib import Path; "
        make += (
            f"make_model(Path('{folder}'), width=512, layers=12, vision_width=320, vision_layers=6)"
        )
        subprocess.run([sys.executable, "-c", make], check=True)
        measured = {}
        for way in WAYS:
            done = subprocess.run(
                [sys.executable, "-m", "bench.judge", way, folder], check=True, capture_output=True, text=True,
                env=os.environ | {"OMP_NUM_THREADS": "1", "VLLM_LOGGING_LEVEL": "ERROR", "PYTHONPATH": "."},
            )  # fmt: skip
            measured[way] = json.loads(re.findall(r"^RESULT (.*)$", done.stdout, re.MULTILINE)[-1])
    for name in SCENARIOS:
        base = measured["one"][name]
        print(
            f"\n| {name} | pairs/s | ratio | tokens computed per pair | largest difference |\n|---|---|---|---|---|"
        )
        for way, title in WAYS.items():
            one = measured[way][name]
            largest = max(
                abs(a - b) for a, b in zip(one["log_odds"], base["log_odds"], strict=True)
            )
            tokens = "" if one["tokens"] != one["tokens"] else f"{one['tokens']:.0f}"
            ratio = one["pairs_per_s"] / base["pairs_per_s"]
            print(
                f"| {title} | {one['pairs_per_s']:.1f} | {ratio:.2f} | {tokens} | {largest:.1e} |"
            )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print("RESULT " + json.dumps(asyncio.run(measure(sys.argv[1], sys.argv[2]))))
    else:
        main()
