"""Hostile clients against the real service: nothing fails inside, no process restarts, and no score changes.

`make hostile` sends 20,000 mutated requests and opens 10,000 silent connections. `make test` uses a sample of both.
"""

import asyncio
import contextlib
import json
import os
import random
import re
import resource
import subprocess
import sys
from collections import Counter
from pathlib import Path

import psutil
import pytest

from judge_service.front.auth import digest_of
from tests.hostile.attacks import KEY, MUTATIONS, endless, question, request, single
from tests.system.services import replica_pids, service
from unijudge.client.client import judge_now
from unijudge.content import Content

REQUESTS = int(os.environ.get("HOSTILE_REQUESTS", "900"))
CONNECTIONS = int(os.environ.get("HOSTILE_CONNECTIONS", "1000"))
AT_ONCE = 16
PATIENCE_S = 20
pytestmark = pytest.mark.timeout(3600)
STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})")
SETTINGS = (
    "replicas=1", "model.backend=scripted", "front.max_ongoing_requests=4", f'key_sha256=["{digest_of(KEY)}"]',
    "front.body_timeout_s=2",
)  # fmt: skip


async def answer(port: int, *pieces: bytes, pause_s: float = 0.0) -> bytes:
    """Returns the bytes that the sender of a raw request receives until the first answer, the end of the connection, or
    a timeout.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    hearing = asyncio.create_task(first_answer(reader))
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause_s)
    except OSError:
        pass  # the service closed the connection during the request
    try:
        return await hearing
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def first_answer(reader):
    heard = b""
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(PATIENCE_S):
            while chunk := await reader.read(65536):
                heard += chunk
                if any(status != b"100" for status in STATUS.findall(heard)):
                    break
    return heard


async def many(port, requests):
    """Sends all requests, some of them in parallel, and returns their statuses. None means that no answer came."""
    slots = asyncio.Semaphore(AT_ONCE)
    counted = Counter()
    failures = []

    async def one(data):
        async with slots:
            heard = await answer(port, data)
        statuses = [int(status) for status in STATUS.findall(heard)] or [None]
        counted.update(statuses)
        if 500 in statuses:
            failures.append((data[:300], heard[:300]))

    await asyncio.gather(*(one(data) for data in requests))
    return counted, failures


async def times_beside(port, attack):
    """Runs an attack, and measures the answer times of a neighbour before the attack and during the attack."""
    found = []
    for work in (asyncio.sleep(3), attack):
        neighbour = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.hostile.neighbour",
            str(port),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        await asyncio.sleep(0.5)
        await work
        printed, _ = await neighbour.communicate(b"")  # closes the input, so the neighbour ends
        found.append(sorted(json.loads(printed)))
    return found


def p99(times):
    return times[int(0.99 * (len(times) - 1))]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with service(tmp_path_factory.mktemp("hostile"), *SETTINGS) as (process, url, log):
        before = (
            judge_now(url, Content(text="a"), [Content(text="b")], key=KEY),
            replica_pids(process),
        )
        logs = ray_logs(process)
        yield process, int(url.rpartition(":")[2]), log
        after = (
            judge_now(url, Content(text="a"), [Content(text="b")], key=KEY),
            replica_pids(process),
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert after == before, "the same score from the same process"
    assert tracebacks(logs) == {}, "a refusal is a line of the log"


def ray_logs(process):
    """The folder of Ray's logs of the service."""
    commands = [
        " ".join(child.cmdline()) for child in psutil.Process(process.pid).children(recursive=True)
    ]
    (folder,) = {
        match for command in commands for match in re.findall(r"/\S*/session_[^/\s]+", command)
    }
    return Path(folder) / "logs"


def tracebacks(logs):
    """The number of tracebacks in each log file of workers and of Ray Serve."""
    files = [*logs.glob("worker-*"), *logs.glob("serve/*.log")]
    assert files
    found = {
        file.name: file.read_text(errors="replace").count("Traceback (most recent")
        for file in files
    }
    return {name: number for name, number in found.items() if number}


def memory(process):
    return sum(
        one.memory_info().rss for one in psutil.Process(process.pid).children(recursive=True)
    )


def report(name, counted, times=None):
    told = ", ".join(f"{status} × {number}" for status, number in sorted(counted.items(), key=str))
    alone = (
        ""
        if times is None
        else f"; neighbour's p99 alone {p99(times[0]):.3f} s, then {p99(times[1]):.3f} s"
    )
    print(f"{name}: {sum(counted.values())} answers: {told}{alone}")


def test_no_single_hostile_request_breaks_the_service(served):
    process, port, _ = served
    before = memory(process)
    counted, failures = asyncio.run(many(port, single()))
    report("tricks", counted)
    assert not failures
    assert {200, 400, 413} <= set(counted)
    assert memory(process) - before < 400 * 2**20


def test_endless_requests_are_closed(served):
    """Eight connections of each kind, two of them without a key, send up to a quarter of a gigabyte each."""
    process, port, _ = served
    before = memory(process)

    async def pour(begin, piece):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(begin)
        poured = 0
        with contextlib.suppress(OSError):
            while poured < 2**28:
                writer.write(piece)
                await writer.drain()
                poured += len(piece)
        writer.transport.abort()
        return poured

    async def story():
        poured = []

        async def attack():
            pouring = (pour(*kind) for kind in endless() for _ in range(8))
            poured.extend(await asyncio.gather(*pouring))

        return await times_beside(port, attack()), poured

    times, poured = asyncio.run(story())
    report("without an end", Counter({None: len(poured)}), times)
    assert max(poured) < 2**24, "what the sockets' buffers hold, and no more"
    assert memory(process) - before < 200 * 2**20


def test_callers_with_short_deadlines_do_not_block_others(served):
    """The requests of this caller are refused. The queue still accepts other requests."""
    _, port, _ = served
    body = b'{"query":{"text":"a"},"candidates":[{"text":"b"}]}'

    async def story():
        statuses = Counter()

        async def attack():
            hasty = (request(body, headers=["Judge-Timeout: 0.00001"]) for _ in range(300))
            counted, _ = await many(port, hasty)
            statuses.update(counted)

        return await times_beside(port, attack()), statuses

    times, statuses = asyncio.run(story())
    report("no patience", statuses, times)
    assert set(statuses) <= {429, 503}
    assert times[1], "the neighbour was answered meanwhile"


def test_mutated_requests_and_pictures(served):
    _, port, _ = served
    dice = random.Random(18)
    counted, failures = asyncio.run(
        many(port, (dice.choice(MUTATIONS)(dice) for _ in range(REQUESTS)))
    )
    report("mutated", counted)
    assert not failures
    assert set(counted) <= {200, 400, 401, 404, 405, 409, 413, 415, 422, 408, 429, None}
    assert counted[200] > REQUESTS / 20, "some mutations leave a request sound"


def test_slow_bodies_do_not_stop_a_neighbour(served):
    """80 callers send single bytes of their bodies. After the time limit each gets an error or is disconnected."""
    _, port, _ = served
    head = request(b"", length="1000")

    async def story():
        results = []

        async def attack():
            slow = [answer(port, head, *[b"x"] * 8, pause_s=1) for _ in range(80)]
            results.extend(await asyncio.gather(*slow))

        return await times_beside(port, attack()), results

    times, results = asyncio.run(story())
    statuses = Counter(int(STATUS.search(heard).group(1)) for heard in results)
    report("slow bodies", statuses, times)
    assert statuses == {408: 80}
    assert times[1], "the neighbour was answered meanwhile"


def test_silent_connections_do_not_stop_a_neighbour(served):
    _, port, _ = served

    async def story():
        writers = []

        async def attack():
            for _ in range(CONNECTIONS):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writers.append(writer)
            await asyncio.sleep(2)

        times = await times_beside(port, attack())
        for writer in writers:
            writer.close()
        return len(writers), times

    opened, times = asyncio.run(story())
    report("silent connections", Counter({None: opened}), times)
    assert opened == CONNECTIONS
    assert times[1]


def test_clients_that_disconnect_leave_no_work(served):
    """A hundred clients at a time send a request and disconnect at once.

    The judge does not work on their requests, and answers other clients.
    """
    _, port, _ = served
    dice = random.Random(1)

    async def leave():
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        data = request(str(question(dice)).replace("'", '"').encode())
        writer.write(data[: dice.randrange(len(data) + 1)])
        await asyncio.sleep(dice.random() / 50)
        writer.transport.abort()

    async def story():
        async def attack():
            for _ in range(max(1, REQUESTS // 100)):
                await asyncio.gather(*(leave() for _ in range(100)))

        return await times_beside(port, attack())

    times = asyncio.run(story())
    report("callers that leave", Counter({None: max(1, REQUESTS // 100) * 100}), times)
    assert times[1]


def test_a_body_without_end_and_without_a_key_takes_no_memory(served):
    process, port, _ = served
    head = b"POST /v1/score HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"10000\r\n" + bytes(65536) + b"\r\n"
    before = memory(process)

    async def story():
        return await asyncio.gather(*(answer(port, head, *[chunk] * 2000) for _ in range(4)))

    heard = asyncio.run(story())
    grown = memory(process) - before
    print(f"4 × 125 MiB without a key: {grown / 2**20:.0f} MiB")
    assert all(not one or b" 401 " in one for one in heard)
    assert grown < 200 * 2**20
