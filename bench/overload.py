"""Measures what a service delivers under more load than its capacity: python -m bench.overload.

The load is an open loop: requests are sent at a fixed rate, whether or not earlier requests were answered, as many
independent callers do. Each load is a multiple of the capacity. For each load the benchmark prints the goodput (answers
within the caller's timeout, also as a share of the capacity), the time of answered requests, the other outcomes, and
the memory of the service. At the end the benchmark prints how long after the last load a request is as fast as before.
With `--soak-s 600`, twice the capacity is sent for ten minutes before this, and the memory is measured ten times.
"""

import argparse
import asyncio
import random
import statistics
import time
from collections import Counter
from dataclasses import dataclass, field

import httpx2
import psutil

from bench.made_up import serving

PATIENCE_S = 10.0
"""How long a caller waits for its answer, in seconds; sent as the header `Judge-Timeout`."""
SETTLED_S = 60.0
SOAK_LOAD, SOAK_LOOKS = 2, 10


@dataclass
class Load:
    """The outcomes of all requests of one load."""

    seconds: float
    offered: int = 0
    times: list[float] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    rss: int = 0

    def goodput(self) -> float:
        """Returns the answers per second that came in time."""
        return sum(one <= PATIENCE_S for one in self.times) / self.seconds

    def line(self, multiple: float, capacity: float) -> str:
        """Returns one row of the table."""
        worst = _quantile(self.times, 0.99)
        refused = (
            ", ".join(f"{status} × {number}" for status, number in sorted(self.others.items()))
            or "nothing"
        )
        return (
            f"{multiple:5g} × {self.offered / self.seconds:8.1f}/s  goodput {self.goodput():7.1f}/s "
            f"{100 * self.goodput() / capacity:6.1f} %  median {statistics.median(self.times or [0]):6.2f} s  "
            f"p99 {worst:6.2f} s  {self.rss / 2**20:7.0f} MiB  refused: {refused}"
        )


class Caller:
    """Sends requests, and never sends the same request twice."""

    def __init__(self, url: str, candidates: int):
        self._url = url
        self._candidates = ",".join(
            f'{{"text":"candidate {number}"}}' for number in range(candidates)
        )
        self._number = 0
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=256)
        self._http = httpx2.AsyncClient(timeout=PATIENCE_S + 5, limits=limits)

    async def once(self) -> tuple[int, float, str]:
        """Sends one request. Returns its status, its seconds, and the value of `Retry-After`."""
        self._number += 1
        body = f'{{"query":{{"text":"query {self._number}"}},"candidates":[{self._candidates}]}}'
        begun = time.monotonic()
        answer = await self._http.post(
            f"{self._url}/v1/score", content=body, headers={"Judge-Timeout": f"{PATIENCE_S:g}"}
        )
        return answer.status_code, time.monotonic() - begun, answer.headers.get("Retry-After", "")

    async def closed_loop(self, callers: int, seconds: float) -> float:
        """Returns the answers per second of some callers, each of which sends one request after another."""
        answered = 0
        end = time.monotonic() + seconds

        async def ask() -> None:
            nonlocal answered
            while time.monotonic() < end:
                status, _, _ = await self.once()
                answered += status == 200

        begun = time.monotonic()
        await asyncio.gather(*(ask() for _ in range(callers)))
        return answered / (time.monotonic() - begun)

    async def open_loop(self, rate: float, seconds: float, load: Load) -> None:
        """Sends requests at random moments with a mean rate, and waits for all of them."""
        dice = random.Random(0)  # noqa: S311  reproducible, not secret
        end = time.monotonic() + seconds
        due = time.monotonic()
        tasks = []
        while due < end:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            tasks.append(asyncio.create_task(self._counted(load)))
            load.offered += 1
            due += dice.expovariate(rate)
        await asyncio.gather(*tasks)

    async def _counted(self, load: Load) -> None:
        try:
            status, took, retry_after = await self.once()
        except httpx2.HTTPError as error:
            load.others[type(error).__name__] += 1
            return
        if status == 200:
            load.times.append(took)
        else:
            load.others[f"{status}{'' if retry_after else ' without Retry-After'}"] += 1

    async def recovered_s(self, normal: float) -> float:
        """Returns the seconds until a request takes at most twice the normal time."""
        begun = time.monotonic()
        while time.monotonic() - begun < SETTLED_S:
            status, took, _ = await self.once()
            if status == 200 and took <= 2 * normal:
                break
        return time.monotonic() - begun


def _quantile(times: list[float], share: float) -> float:
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def _memory() -> int:
    """Returns the memory of the service and of all its child processes, in bytes."""
    return sum(child.memory_info().rss for child in psutil.Process().children(recursive=True))


async def soak(caller: Caller, rate: float, seconds: float) -> None:
    """Prints the memory of the service during a long load."""
    load = Load(seconds)
    running = asyncio.create_task(caller.open_loop(rate, seconds, load))
    sizes = [_memory()]
    for _ in range(SOAK_LOOKS):
        await asyncio.sleep(seconds / SOAK_LOOKS)
        sizes.append(_memory())
    await running
    shown = ", ".join(f"{size / 2**20:.0f}" for size in sizes)
    print(
        f"{seconds:g} s at {rate:.1f} requests/s: {load.goodput():.1f}/s answered in time; memory in MiB: {shown}"
    )


async def measure(url: str, given: argparse.Namespace) -> None:
    """Prints the table."""
    slots, seconds = given.slots, given.seconds
    caller = Caller(url, given.candidates)
    alone = Load(seconds)
    for _ in range(20):
        await caller._counted(alone)
    capacity = await caller.closed_loop(2 * slots, seconds)
    longest_s = max(alone.times)
    print(
        f"capacity {capacity:.1f} requests/s with {2 * slots} waiting callers; without load: p99 {longest_s:.2f} s"
    )
    for multiple in given.loads:
        load = Load(seconds)
        await caller.open_loop(multiple * capacity, seconds, load)
        load.rss = _memory()
        print(load.line(multiple, capacity), flush=True)
    if given.soak_s:
        await soak(caller, SOAK_LOAD * capacity, given.soak_s)
    recovered = await caller.recovered_s(longest_s)
    print(f"{recovered:.1f} s after the last load, a request takes no longer than before")


def main() -> None:
    """Starts a service and measures it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--loads", type=float, nargs="+", default=[1, 2, 4, 8, 16], help="multiples of the capacity"
    )
    parser.add_argument("--seconds", type=float, default=20, help="duration of each load")
    parser.add_argument(
        "--soak-s", type=float, default=0, help="duration of the memory measurement, in seconds"
    )
    parser.add_argument(
        "--slots", type=int, default=4, help="requests that the replica processes at the same time"
    )
    parser.add_argument("--candidates", type=int, default=1, help="pairs per request")
    parser.add_argument(
        "--delay",
        type=float,
        default=0.2,
        help="time of the scripted judge for a request, in seconds",
    )
    parser.add_argument("--model", help="folder of a real model, instead of the scripted judge")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="more settings of the service",
    )
    given = parser.parse_args()
    settings: dict[str, object] = {"front.max_ongoing_requests": given.slots, "front.max_wait_s": 1}
    if given.model:
        settings |= {
            "model.name": given.model,
            "health.min_label_mass": 0,
            "health.canary_every_s": 0,
        }
    else:
        settings |= {"model.backend": "scripted", "model.scripted_delay_s": given.delay}
    settings |= dict(one.split("=", 1) for one in given.set)
    with serving(settings) as url:
        asyncio.run(measure(url, given))


if __name__ == "__main__":
    main()
