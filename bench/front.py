"""Measures the cost of the gate and the queue, compared with Ray Serve alone: python -m bench.front.

Two services with the scripted judge run at the same time, with one replica each, and get requests in turns. One service
is `judge serve`. The other is the shortest application that Ray Serve accepts: FastAPI parses the body, the same judge
answers, and nothing is checked, counted or queued. In the first comparison the judge is limited to `--pairs-per-s`. In
the second, the judge takes no time, so everything except the judge is measured. A request has 50 candidates.
"""

import argparse
import asyncio
import contextlib
import signal
import statistics
import sys
import threading
import time
from dataclasses import dataclass, field

import httpx2
import psutil

from bench.made_up import Service, running
from judge_service.backends.scripted import ScriptedJudge
from judge_service.cluster import join
from judge_service.settings import ServiceSettings
from unijudge.judging.prompt import Prompt
from unijudge.judging.protocol import ScoreRequest, ScoreResponse, WireContent
from unijudge.settings import load_settings

CANDIDATES = 50
SLOTS = 4
"""Requests that a replica processes at the same time, and that the client has in flight."""
ALONE = (sys.executable, "-m", "bench.front", "--alone")


@dataclass
class Way:
    """One service and its measurements."""

    name: str
    url: str
    process: psutil.Process
    pairs_per_s: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    """CPU time of the service for a thousand pairs, in milliseconds, for each turn."""

    def measure(self, seconds: float) -> None:
        """Measures one turn."""
        cpu = _cpu_s(self.process)
        begun = time.monotonic()
        pairs = asyncio.run(_ask(self.url, seconds))
        self.pairs_per_s.append(pairs / (time.monotonic() - begun))
        self.cpu_ms.append(1e6 * (_cpu_s(self.process) - cpu) / pairs)


async def _ask(url: str, seconds: float) -> int:
    """Returns the answered pairs of `SLOTS` callers, each of which sends one request after another."""
    end = time.monotonic() + seconds
    pairs = 0

    async def caller(http: httpx2.AsyncClient, name: int) -> None:
        nonlocal pairs
        number = 0
        while time.monotonic() < end:
            number += 1
            candidates = [
                WireContent(text=f"candidate {number}.{place} of a query")
                for place in range(CANDIDATES)
            ]
            request = ScoreRequest.model_construct(
                query=WireContent(text=f"{name}: {number}"), candidates=candidates
            )
            answer = await http.post(
                f"{url}/v1/score", content=request.model_dump_json(exclude_none=True)
            )
            answer.raise_for_status()
            pairs += CANDIDATES

    async with httpx2.AsyncClient(timeout=60, headers={"Content-Type": "application/json"}) as http:
        await asyncio.gather(*(caller(http, name) for name in range(SLOTS)))
    return pairs


def _cpu_s(process: psutil.Process) -> float:
    """Returns the CPU time of a process and all its child processes, in seconds."""
    spent = 0.0
    for one in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = one.cpu_times()
            spent += times.user + times.system
    return spent


def serve_alone(settings: ServiceSettings) -> None:
    """Serves with Ray Serve alone, until a signal arrives."""
    from fastapi import FastAPI
    from ray import serve

    app = FastAPI()

    @serve.deployment(max_ongoing_requests=2 * SLOTS)
    @serve.ingress(app)
    class Alone:
        def __init__(self) -> None:
            self._judge = ScriptedJudge(Prompt(), delay_s=settings.model.scripted_delay_s)

        @app.get("/readyz")
        async def ready(self) -> str:
            """Reports that the service answers."""
            return "ready"

        @app.post("/v1/score")
        async def score(self, request: ScoreRequest) -> ScoreResponse:
            """Returns one verdict for each candidate."""
            query, *candidates = (one.content({}) for one in (request.query, *request.candidates))
            results = await self._judge.judge(query, candidates)
            return ScoreResponse(identity=self._judge.identity, results=results)

    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    join(settings)
    serve.start(http_options={"host": settings.host, "port": settings.port})
    serve.run(Alone.bind())  # type: ignore[attr-defined]  # serve.deployment adds it
    stop.wait()
    serve.shutdown()


def compare(delay_s: float, turns: int, seconds: float) -> list[Way]:
    """Measures both services in turns."""
    settings = {
        "model.backend": "scripted",
        "model.scripted_delay_s": delay_s,
        "front.max_ongoing_requests": SLOTS,
    }
    services = {
        "Ray Serve alone": Service(settings, command=ALONE),
        "unijudge": Service(settings),
    }
    with contextlib.ExitStack() as stack:
        ways = []
        for name, service in services.items():
            stack.enter_context(running(service))
            ways.append(Way(name, service.url, psutil.Process(service.process.pid)))
        for way in ways:
            asyncio.run(_ask(way.url, 3))  # warm-up, so that loading is not measured
        for _ in range(turns):
            for way in ways:
                way.measure(seconds)
    return ways


def main() -> None:
    """Prints a table with both speeds of the judge."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--pairs-per-s", type=float, default=2000, help="limit of the judge in the first comparison"
    )
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8, help="duration of each turn")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--set", action="append", default=[], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.alone:
        serve_alone(load_settings(ServiceSettings, None, given.set))
        return
    paces = {
        f"at most {given.pairs_per_s:g} pairs/s": SLOTS * CANDIDATES / given.pairs_per_s,
        "takes no time": 0.0,
    }
    print("| judge | service | pairs/s | ratio to Ray Serve alone | CPU ms per 1,000 pairs |")
    print("|---|---|---|---|---|")
    for pace, delay_s in paces.items():
        ways = compare(delay_s, given.turns, given.seconds)
        for way in ways:
            shares = [
                ours / alone
                for ours, alone in zip(way.pairs_per_s, ways[0].pairs_per_s, strict=True)
            ]
            print(
                f"| {pace} | {way.name} | {statistics.median(way.pairs_per_s):.0f} | {statistics.median(shares):.3f} "
                f"| {statistics.median(way.cpu_ms):.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
