"""Step 3: how many pairs per second the judge scores, compared with the limit of the GPU."""

import asyncio
import itertools
import time
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

from bench.gpu.options import Options, service_settings
from bench.gpu.product import device_name, product_rate
from bench.gpu.step import Case, Figures, Outcome, Skipped, Step, Table, check_engine, number
from bench.judge import Work, work
from bench.peaks import peak_of

IN_FLIGHT = {"vllm": 16, "transformers": 2}
"""Queries in flight. The transformers backend processes one query while the other waits."""
COUNTED = 8
"""Number of queries whose tokens are counted. All queries have nearly the same number of tokens."""
SCENARIOS = {"image → image, 12 candidates": (12, True), "image → text, 50 candidates": (50, False)}
"""Number of candidates of a query, and whether the candidates are images."""


def multiply(options: Options) -> Figures:
    """Returns the rate of a large matrix product, and the GPU's peak as published by its maker."""
    name = device_name(options.device)
    rate = product_rate(options.device, options.scale.product_size)
    return {"device": name, "maker_peak": peak_of(name), "product_rate": rate}


def judge_pairs(
    options: Options,
    *,
    backend: Literal["vllm", "transformers"],
    graphs: Literal["off", "piecewise"] = "off",
) -> Figures:
    """Returns the pairs per second in each scenario, and the least cost of a pair."""
    if options.dry_run and graphs == "piecewise":
        raise Skipped("vLLM records graphs on a GPU only")
    check_engine(options, backend)
    from judge_service.backends import open_judge

    begun = time.perf_counter()
    # The engine gets its own process, so that a dry run uses the same code path as a GPU.
    judge = open_judge(service_settings(options, backend, graphs=graphs, own_process=True))
    start_s = time.perf_counter() - begun

    # One event loop for everything, because vLLM's engine stays bound to its first event loop.
    return {
        "start_s": start_s,
        "scenarios": asyncio.run(_scenarios(options, judge, IN_FLIGHT[backend])),
    }


async def _scenarios(options: Options, judge: Any, in_flight: int) -> Figures:
    """Returns the measurements of each scenario."""
    scale = options.scale
    found = {}
    for name, (candidates, images) in SCENARIOS.items():
        queries = scale.judge_images if images else scale.judge_texts
        todo = work(queries, candidates, images=images, seed=1, side=scale.image_side)

        # Other pairs run first, so that compilation and loading are not measured.
        await flow(
            judge, work(1, candidates, images=images, seed=7, side=scale.image_side), in_flight, 60
        )
        computed_before = _computed(judge)
        pairs, seconds = await flow(judge, todo, in_flight, scale.judge_seconds)

        computed = _computed(judge)
        tokens = (computed - computed_before) / pairs if computed is not None else None
        flops, least_tokens = cost_of(judge, todo[:COUNTED])
        found[name] = {
            "pairs": pairs, "seconds": seconds, "flops_per_pair": flops, "least_tokens": least_tokens, "tokens": tokens,
        }  # fmt: skip
    return found


async def flow(judge: Any, todo: Work, in_flight: int, seconds: float) -> tuple[int, float]:
    """Judges queries, a number of them at the same time, and starts no query after some seconds.

    Returns:
        The number of pairs with a verdict, and the seconds until the last verdict.

    Raises:
        RuntimeError: A pair has no verdict.
    """
    from unijudge.judging.verdicts import PairError

    waiting = iter(todo)
    begun = time.perf_counter()
    judged = 0

    async def worker() -> None:
        nonlocal judged
        while time.perf_counter() - begun < seconds:
            query, candidates = next(waiting, (None, []))
            if query is None:
                return
            answers = await judge.judge(query, candidates)
            errors = [answer.message for answer in answers if isinstance(answer, PairError)]
            if errors:
                raise RuntimeError(f"a pair has no verdict: {errors[0]}")
            judged += len(answers)

    await asyncio.gather(*(worker() for _ in range(in_flight)))
    return judged, time.perf_counter() - begun


def cost_of(judge: Any, some: Work) -> tuple[float | None, float]:
    """Returns the mean FLOPs and the mean tokens of a pair, if nothing is computed twice.

    The FLOPs are None for a model whose vision tower is not supported by the counter.
    """
    from judge_service.replica.counting import counter_of
    from unijudge.judging.flops import pair_flops

    counter = counter_of(judge)
    counts = [counter.count(query, candidates) for query, candidates in some]
    pairs = sum(map(len, counts))

    tokens = 0.0
    flops = 0.0
    for found in counts:
        for count in found:
            tokens += count.tokens - count.shared_tokens + count.shared_tokens / len(found)
            if counter.shape is not None:
                price = pair_flops(
                    counter.shape,
                    count,
                    candidates_of_query=len(found),
                    queries_of_candidate=1,
                    wasted_tokens=0,
                )
                flops += price.prefix_cached
    return (flops / pairs if counter.shape is not None else None), tokens / pairs


def _computed(judge: Any) -> int | None:
    """Returns the number of computed tokens so far; None for a judge that does not count tokens."""
    if not hasattr(judge, "cached_tokens"):
        return None
    return judge.prompt_tokens - judge.cached_tokens


def tables(outcomes: Mapping[str, Outcome]) -> list[Table]:
    """Returns a table with one row per scenario and way."""
    measured = outcomes["product"].figures
    peak = measured.get("maker_peak") or measured.get("product_rate")
    rows = []
    for scenario, (name, case) in itertools.product(SCENARIOS, STEP.cases.items()):
        if name == "product":
            continue
        figures = outcomes[name].figures
        found = figures["scenarios"][scenario] if figures else None
        rows.append(
            [scenario, case.title, *_row(found, peak), number(figures.get("start_s"), ".0f")]
        )
    header = [
        "pairs", "way", "pairs/s", "limit, pairs/s", "model FLOPs utilisation", "useful TFLOP/s",
        "tokens computed per pair", "least tokens per pair", "start, s",
    ]  # fmt: skip
    return [Table(header, rows, _note(measured))]


def _row(found: Mapping[str, Any] | None, peak: float | None) -> list[str]:
    if found is None:
        return [number(None, "")] * 6
    rate = found["pairs"] / found["seconds"]
    flops = found["flops_per_pair"]
    useful = rate * flops if flops else None
    return [
        number(rate, ".1f"),
        number(peak / flops if peak and flops else None, ".1f"),
        number(useful / peak if peak and useful else None, ".1%"),
        number(useful / 1e12 if useful else None, ".3g"),
        number(found["tokens"], ".0f"),
        number(found["least_tokens"], ".0f"),
    ]


def _note(measured: Mapping[str, Any]) -> str:
    if not measured:
        return "The limit needs the rate of a large matrix product, which was not measured."
    rate = f"{measured['product_rate'] / 1e12:.3g} TFLOP/s"
    if measured["maker_peak"]:
        peak = f"the maker's peak of a {measured['device']}, {measured['maker_peak'] / 1e12:.4g} TFLOP/s"
        used = f"{peak}; the measured rate of a large matrix product is {rate}"
    else:
        used = f"{rate}, measured with a large product in bfloat16, because the table of peaks lacks this device"
    return (
        "The limit is the number of pairs that the GPU would score at its peak rate, if it computed nothing twice. The "
        "shared prefix of a query's candidates and each image would be computed once "
        f"(`unijudge.judging.flops.pair_flops`). Peak: {used}. The time of a pair includes decoding of images and "
        f"building of prompts. vLLM has {IN_FLIGHT['vllm']} queries in flight."
    )


STEP = Step(
    name="judge",
    title="Judge",
    about="Pairs per second in bfloat16, with a head in float32.",
    cases={
        "product": Case("a large matrix product", multiply, ["torch"]),
        "transformers": Case(
            "transformers backend",
            partial(judge_pairs, backend="transformers"),
            ["torch", "transformers"],
        ),
        "vllm": Case("vLLM backend, graphs off", partial(judge_pairs, backend="vllm"), ["vllm"]),
        "vllm-graphs": Case(
            "vLLM backend, piecewise graphs",
            partial(judge_pairs, backend="vllm", graphs="piecewise"),
            ["vllm"],
        ),
    },
    tables=tables,
    models=["judge"],
)
