"""Measures a fault of vLLM's image cache when callers disconnect, and the cost of each cure.

    .venv/bin/python -m bench.left_callers --questions 480

vLLM's front process prepares an image, notes that the engine has it, and then sends it. If a caller disconnects in
between, the note is wrong. The next question about this image gets an output without log-probabilities, with the finish
reason "error". This happens with vLLM 0.32.0, `AsyncLLM`, CPU build. `tests/vllm/test_async_engine.py` contains the
shortest case.

The judge is tiny. Ways with different vLLM options use separate engines. In the first part, each of `--questions`
questions has a unique image. Its caller disconnects after 0 to 80 ms and sends the question again. In the second part,
requests contain one query and `--candidates` candidates, each with an image of 289 tokens. These requests measure the
CPU time per pair of the front process, which prepares the images, and of the engine.
"""

import argparse
import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil

from demo.tiny_model import make_model
from judge_service.backends import open_judge
from judge_service.backends import vllm as backend
from judge_service.settings import EngineSettings, ModelSettings, ServiceSettings
from tests.pictures import pattern
from unijudge.content import Content

WAYS = {
    "default": {},
    "no cache": {"mm_processor_cache_gb": 0},
    "not aborted": {},
    "sent again": {},
    "always whole": {},
    "shared memory": {"mm_processor_cache_type": "shm"},
}
"""The name of a way, and its options for vLLM."""
IN_FLIGHT = 8
LONGEST_WAIT_S = 0.08
SIZE = (480, 480)
"""Width and height of an image with 289 tokens."""
REQUESTS = 8

Ask = Callable[[dict[str, Any]], Awaitable[Any]]


def asking(way: str, judge: Any) -> Ask:
    """Returns the function that sends a prompt to the engine."""
    engine = judge._engine
    parameters = judge._parameters(logprob_token_ids=list(judge._labels))

    async def plain(prompt: dict[str, Any]) -> Any:
        return await engine.generate(prompt, parameters)

    async def not_aborted(prompt: dict[str, Any]) -> Any:
        return await asyncio.shield(asyncio.create_task(plain(prompt)))

    async def whole(prompt: dict[str, Any]) -> Any:
        return await engine.generate(prompt, parameters, again=True)

    async def again(prompt: dict[str, Any]) -> Any:
        return await judge._output(prompt, parameters)

    return {"not aborted": not_aborted, "always whole": whole, "sent again": again}.get(way, plain)


def prompts_of(judge: Any, query: Content, candidates: list[Content]) -> list[dict[str, Any]]:
    """Returns the prompts that the judge makes."""
    return [prompt for prompt, _ in judge._prepare(query, candidates)[1].values()]


async def left_and_back(judge: Any, ask: Ask, questions: int, first: int) -> dict[str, float]:
    """Returns how many callers disconnected, how many second questions got no answer, and the seconds.

    Args:
        judge: The judge that makes the prompts.
        ask: The function that sends a prompt.
        questions: Number of questions.
        first: Number of the first image.
    """
    dice = random.Random(0)  # noqa: S311  reproducible, not secret
    places = asyncio.Semaphore(IN_FLIGHT)
    begun = time.perf_counter()

    async def one(number: int) -> tuple[bool, bool]:
        picture = pattern(first + number, (56 + number % 60, 56 + number % 50))
        (prompt,) = prompts_of(judge, Content(text=f"question {number}"), [Content(image=picture)])
        async with places:
            task = asyncio.create_task(ask(prompt))
            await asyncio.sleep(dice.uniform(0, LONGEST_WAIT_S))
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            answered = bool((await ask(prompt)).outputs[0].logprobs)
            return task.cancelled(), answered

    outcomes = await asyncio.gather(*(one(number) for number in range(questions)))
    return {
        "left": sum(left for left, _ in outcomes),
        "unanswered": sum(not answered for _, answered in outcomes),
        "seconds": time.perf_counter() - begun,
    }


async def costs(judge: Any, ask: Ask, candidates: int, first: int) -> dict[str, float]:
    """Returns the CPU seconds of front and engine, and the wall-clock seconds. Arguments: see `left_and_back`."""
    prompts = [
        prompts_of(
            judge,
            Content(text="which?", image=pattern(first + request, SIZE)),
            [
                Content(image=pattern(first + 1000 * (request + 1) + number, SIZE))
                for number in range(candidates)
            ],
        )
        for request in range(REQUESTS + 1)
    ]
    await asyncio.gather(*(ask(prompt) for prompt in prompts[-1]))
    front, engine, wall = time.process_time(), engine_seconds(), time.perf_counter()
    for request in prompts[:-1]:
        await asyncio.gather(*(ask(prompt) for prompt in request))
    return {
        "pairs": REQUESTS * candidates,
        "front_s": time.process_time() - front,
        "engine_s": engine_seconds() - engine,
        "wall_s": time.perf_counter() - wall,
    }


def engine_seconds() -> float:
    """Returns the CPU time of all child processes, in seconds."""
    times = [process.cpu_times() for process in psutil.Process().children(recursive=True)]
    return sum(one.user + one.system for one in times)


def measure(
    ways: list[str], model: Path, questions: int, candidates: int
) -> dict[str, dict[str, Any]]:
    """Measures ways with the same options in one engine. Each way uses its own images."""
    plan = backend.engine_plan

    def with_options(*arguments: Any) -> Any:
        made = plan(*arguments)
        made.options.update(WAYS[ways[0]])
        return made

    backend.engine_plan = with_options
    settings = ServiceSettings(
        model=ModelSettings(
            name=str(model),
            backend="vllm",
            min_pixels=3136,
            max_pixels=SIZE[0] * SIZE[1],
            max_num_seqs=64,
        ),
        engine=EngineSettings(multiprocessing=True),
        log_folder=model.parent,
    )

    async def story() -> dict[str, dict[str, Any]]:
        judge: Any = open_judge(settings)
        found = {}
        for number, way in enumerate(ways):
            ask, first = asking(way, judge), 1_000_000 * number
            storm = await left_and_back(judge, ask, questions, first)
            found[way] = storm | await costs(judge, ask, candidates, first + 100_000)
        await asyncio.to_thread(judge._engine._engine.shutdown)
        return found

    return asyncio.run(story())


def main() -> None:
    """Measures the ways in separate processes, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=480)
    parser.add_argument("--candidates", type=int, default=16)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.model:
        print(
            "RESULT",
            json.dumps(measure(given.ways, given.model, given.questions, given.candidates)),
            flush=True,
        )
        return
    print("way            left  unanswered  storm s  front ms/pair  engine ms/pair  pairs/s")
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "tiny"
        make_model(model)
        sizes = [
            "--questions",
            str(given.questions),
            "--candidates",
            str(given.candidates),
            "--model",
            str(model),
        ]
        for options in {str(WAYS[way]) for way in given.ways}:
            alike = [way for way in given.ways if str(WAYS[way]) == options]
            command = [sys.executable, "-m", "bench.left_callers", *sizes, "--ways", *alike]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            (line,) = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
            for way, found in json.loads(line.removeprefix("RESULT")).items():
                show(way, found)


def show(way: str, found: dict[str, Any]) -> None:
    """Prints one line of the table."""
    front, engine = (1000 * found[f"{name}_s"] / found["pairs"] for name in ("front", "engine"))
    print(
        f"{way:13} {found['left']:5} {found['unanswered']:11} {found['seconds']:8.1f} {front:14.2f} {engine:15.2f} "
        f"{found['pairs'] / found['wall_s']:8.1f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
