"""Measures whether many clients of one service get equal shares, and whether the service stays as fast as for one.

    .venv/bin/python -m bench.fairness --seconds 60

The scripted judge behind Ray Serve answers a fixed number of requests per second. First one client runs, then ten
clients at the same time. Each client always has `--in-flight` new queries in flight. Only pairs that are answered after
the first ten seconds count. All clients share one process and one event loop, so the service limits them, and not the
cores of this machine.

Jain's fairness index of the clients' pairs is (Σx)² / (n Σx²). The index is 1 if all clients get the same number of
pairs, and 1/n if one client gets all pairs.
"""

import argparse
import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field

import httpx2

from bench.made_up import serving
from unijudge.client.client import JudgeClient
from unijudge.content import Content
from unijudge.judging.verdicts import Verdict

WARM_UP_S = 10


@dataclass
class Client:
    """The counts of one client."""

    pairs: int = 0
    """Number of pairs with a verdict, after the warm-up."""
    statuses: Counter[str] = field(default_factory=Counter)
    """Number of answers by HTTP status, or by the error without an answer, in the whole run."""


class Watched(httpx2.AsyncHTTPTransport):
    """A transport that counts its answers."""

    def __init__(self, client: Client):
        super().__init__(limits=httpx2.Limits(max_connections=None, max_keepalive_connections=None))
        self._client = client

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Sends one request and counts its outcome."""
        try:
            response = await super().handle_async_request(request)
        except BaseException as error:
            self._client.statuses[type(error).__name__] += 1
            raise
        self._client.statuses[str(response.status_code)] += 1
        return response


async def ask(url: str, name: str, options: argparse.Namespace) -> Client:
    """Runs one client with a full number of queries in flight, until the time is over."""
    counted = Client()
    begun = time.monotonic()
    end = begun + WARM_UP_S + options.seconds
    transport = Watched(counted)

    async def asking(judge: JudgeClient, worker: int) -> None:
        number = 0
        while True:
            number += 1
            candidates = [
                Content(f"candidate {number}.{n} of {name}.{worker}")
                for n in range(options.candidates)
            ]
            answers = await judge.judge(Content(f"query {number} of {name}.{worker}"), candidates)
            if begun + WARM_UP_S < time.monotonic() < end:
                counted.pairs += sum(isinstance(answer, Verdict) for answer in answers)

    async with JudgeClient(url, max_in_flight=options.in_flight, transport=transport) as judge:
        workers = [
            asyncio.create_task(asking(judge, worker)) for worker in range(options.in_flight)
        ]
        await asyncio.wait(
            workers, timeout=end - time.monotonic(), return_when=asyncio.FIRST_EXCEPTION
        )
        for worker in workers:
            worker.cancel()
        for ended in await asyncio.gather(*workers, return_exceptions=True):
            if isinstance(ended, Exception):
                raise ended
    return counted


async def ask_all(url: str, clients: int, options: argparse.Namespace) -> list[Client]:
    """Runs all clients, started at the same time."""
    return await asyncio.gather(
        *(ask(url, f"client {n} of {clients}", options) for n in range(clients))
    )


def jain(shares: list[int]) -> float:
    """Returns Jain's fairness index."""
    return sum(shares) ** 2 / (len(shares) * sum(share**2 for share in shares))


def main() -> None:
    """Runs one client, then ten, and prints a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument(
        "--in-flight", type=int, default=64, help="queries in flight for each client"
    )
    parser.add_argument("--candidates", type=int, default=10, help="candidates of each query")
    parser.add_argument(
        "--delay-s", type=float, default=0.1, help="time of the judge for a request, in seconds"
    )
    parser.add_argument(
        "--seconds", type=float, default=60, help="counted duration of each run, in seconds"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="more settings of the service",
    )
    options = parser.parse_args()
    settings: dict[str, object] = {
        "model.backend": "scripted",
        "model.scripted_delay_s": options.delay_s,
    }
    settings |= dict(setting.split("=", 1) for setting in options.set)

    with serving(settings) as url:
        measured = {
            clients: asyncio.run(ask_all(url, clients, options)) for clients in (1, options.clients)
        }
    alone = sum(client.pairs for client in measured[1])
    print(
        "| clients | pairs/s | ratio to one client | Jain's index | fewest and most pairs | HTTP statuses |"
    )
    print("|---|---|---|---|---|---|")
    for clients, found in measured.items():
        pairs = [client.pairs for client in found]
        statuses = sum((client.statuses for client in found), Counter[str]())
        counts = ", ".join(f"{status}: {number}" for status, number in sorted(statuses.items()))
        print(
            f"| {clients} | {sum(pairs) / options.seconds:.1f} | {sum(pairs) / alone:.3f} | {jain(pairs):.4f} | "
            f"{min(pairs)}, {max(pairs)} | {counts} |"
        )


if __name__ == "__main__":
    main()
