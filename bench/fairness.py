"""Many clients on one service: does each get its share, and is the service as busy as with one client alone?

    .venv/bin/python -m bench.fairness --seconds 60

The scripted judge behind Ray Serve answers a fixed number of requests a second. First one client asks alone, then ten
at once; each has `--in-flight` queries waiting at any time, all of them new. What is counted is pairs that were
answered after the first ten seconds. The clients share one process and one event loop: they are slowed down by the
service and not by this machine's cores.

Jain's fairness index of the clients' pairs is (Σx)² / (n Σx²): 1 where all got the same, 1/n where one got everything.
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
    """One client's count."""

    pairs: int = 0
    """That got a verdict after the warm-up."""
    statuses: Counter[str] = field(default_factory=Counter)
    """How often each HTTP status came, or no answer at all, in the whole run."""


class Watched(httpx2.AsyncHTTPTransport):
    """The network; counts what came back."""

    def __init__(self, client: Client):
        super().__init__(limits=httpx2.Limits(max_connections=None, max_keepalive_connections=None))
        self._client = client

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """One request."""
        try:
            response = await super().handle_async_request(request)
        except BaseException as error:
            self._client.statuses[type(error).__name__] += 1
            raise
        self._client.statuses[str(response.status_code)] += 1
        return response


async def ask(url: str, name: str, options: argparse.Namespace) -> Client:
    """One client: as many queries at once as it may have, until the time is over."""
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
    """All clients, begun together."""
    return await asyncio.gather(
        *(ask(url, f"client {n} of {clients}", options) for n in range(clients))
    )


def jain(shares: list[int]) -> float:
    """Jain's fairness index."""
    return sum(shares) ** 2 / (len(shares) * sum(share**2 for share in shares))


def main() -> None:
    """One client, then ten, and a table of both."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument(
        "--in-flight", type=int, default=64, help="queries that each client has waiting"
    )
    parser.add_argument("--candidates", type=int, default=10, help="of each query")
    parser.add_argument(
        "--delay-s", type=float, default=0.1, help="how long the judge takes for a request"
    )
    parser.add_argument("--seconds", type=float, default=60, help="how long each run is counted")
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
        "| clients | pairs/s | of one client's | Jain's index | fewest and most pairs of one | HTTP statuses |"
    )
    print("|---|---|---|---|---|---|")
    for clients, found in measured.items():
        pairs = [client.pairs for client in found]
        statuses = sum((client.statuses for client in found), Counter[str]())
        told = ", ".join(f"{status}: {number}" for status, number in sorted(statuses.items()))
        print(
            f"| {clients} | {sum(pairs) / options.seconds:.1f} | {sum(pairs) / alone:.3f} | {jain(pairs):.4f} | "
            f"{min(pairs)}, {max(pairs)} | {told} |"
        )


if __name__ == "__main__":
    main()
