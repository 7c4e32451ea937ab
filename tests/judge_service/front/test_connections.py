"""The limits of a connection, on a real uvicorn server: heads, framing, pipelines, answers that nobody reads, and
silence.
"""

import asyncio
import contextlib
import re

import pytest
import uvicorn

from judge_service.front import connections
from judge_service.front.connections import HEAD_BYTES, PIPELINED, BoundedConnection

HEAD = b"POST /v1/score HTTP/1.1\r\nHost: judge\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
STATUS = re.compile(rb"HTTP/1\.1 (\d{3})")


class App:
    """An application that reads bodies, and gives the configured answers."""

    def __init__(self):
        self.bodies, self.left = [], 0
        self.hold = asyncio.Event()
        self.hold.set()
        self.answer = b"{}"

    async def __call__(self, scope, receive, send):
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.left += 1
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self.bodies.append(body)
        if not self.hold.is_set():
            await receive()
            self.left += 1
            return
        length = str(len(self.answer)).encode()
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]}
        )
        await send({"type": "http.response.body", "body": self.answer})


@contextlib.asynccontextmanager
async def serving():
    """(app, port)."""
    app = App()
    config = uvicorn.Config(
        app, port=0, http=BoundedConnection, lifespan="off", log_level="critical"
    )
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None
    running = asyncio.create_task(server._serve())
    async with asyncio.timeout(30):
        while not server.started:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    try:
        yield app, server.servers[0].sockets[0].getsockname()[1]
    finally:
        app.hold.set()
        server.should_exit = True
        await running


async def statuses_of(port, *pieces, pause_s=0.0):
    """The statuses that a client receives until the connection ends, for at most five seconds."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    hearing = asyncio.create_task(read_statuses(reader))
    with contextlib.suppress(OSError):
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause_s)
    found = await hearing
    writer.close()
    return found


async def read_statuses(reader, answers=1):
    found = b""
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(5):
            while len(STATUS.findall(found)) < answers and (piece := await reader.read(2**16)):
                found += piece
    return [int(status) for status in STATUS.findall(found)]


def run(story):
    async def all_of_it():
        async with serving() as (app, port):
            return await story(app, port), app

    found, app = asyncio.run(all_of_it())
    assert not BoundedConnection._idle, "nobody is counted who has left"
    return found, app


SMALL = b"a" * 2000


@pytest.mark.parametrize(
    ("begin", "more"),
    [
        (HEAD + b"X: ", SMALL),
        (b"GET /", SMALL),
        (HEAD, b"Abc: defg\r\n" * 200),
        (CHUNKED + b"1;", b"extension;" * 200),
        (CHUNKED + b"1\r\nx\r\n0\r\n", b"Trailer: x\r\n" * 200),
        (CHUNKED, b"1\r\nx\r\n" * 400),
    ],
)
def test_endless_bytes_outside_of_a_body_close_the_connection(begin, more):
    """The pieces arrive one after the other. The connection closes long before two megabytes."""

    async def story(_app, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        sent = 0
        writer.write(begin)
        while not reader.at_eof() and sent < 2**21:
            with contextlib.suppress(OSError):
                writer.write(more)
                await writer.drain()
            sent += len(more)
            await asyncio.sleep(0.001)
            with contextlib.suppress(TimeoutError, OSError):
                await asyncio.wait_for(reader.read(2**16), 0.001)
        writer.transport.abort()
        return sent

    sent, app = run(story)
    assert HEAD_BYTES - len(more) < sent < 4 * HEAD_BYTES
    assert not app.bodies


def test_a_client_with_a_long_head_gets_the_reason():
    (statuses, long_enough), _ = run(long_heads)
    assert statuses == [431]
    assert long_enough == [200]


async def long_heads(_app, port):
    end = b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    return (
        await statuses_of(port, HEAD + b"X: ", b"a" * HEAD_BYTES, b"a" * 100, pause_s=0.05),
        await statuses_of(port, HEAD + b"X: ", b"a" * (HEAD_BYTES - 1000), end, pause_s=0.05),
    )


def test_bodies_of_any_size_pass():
    """The body has a length, or has chunks of a kilobyte.

    The chunks have far more framing bytes than a head may have.
    """
    size = 2**23

    async def story(_app, port):
        chunks = (b"400\r\n" + b"x" * 1024 + b"\r\n") * (size // 1024) + b"0\r\n\r\n"
        whole = HEAD + b"Content-Length: %d\r\n\r\n" % size + b"x" * size
        return await statuses_of(port, whole) + await statuses_of(port, CHUNKED + chunks)

    statuses, app = run(story)
    assert statuses == [200, 200]
    assert app.bodies == [b"x" * size] * 2
    assert (size // 1024) * len(b"400\r\n\r\n") > HEAD_BYTES - 2**14


@pytest.mark.parametrize("first", [b"", HEAD + b"Content-Length: 0\r\n\r\n"])
def test_an_unfinished_head_closes_the_connection(monkeypatch, first):
    """This also holds for the second request of a connection that is kept alive."""
    monkeypatch.setattr(connections, "HEAD_S", 0.3)

    async def story(_app, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        (connection,) = BoundedConnection._idle
        connection.timeout_keep_alive = 0.3
        writer.write(first)
        statuses = await read_statuses(reader) if first else []
        writer.write(HEAD)
        async with asyncio.timeout(10):
            while not reader.at_eof():
                writer.write(b"X")  # the time limit is for the whole head, not for a piece
                with contextlib.suppress(TimeoutError, OSError):
                    await asyncio.wait_for(reader.read(100), 0.1)
        return statuses

    statuses, app = run(story)
    assert (statuses, len(app.bodies)) == (([200], 1) if first else ([], 0))


def test_a_few_requests_may_be_sent_ahead():
    async def story(_app, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write((HEAD + b"Content-Length: 1\r\n\r\nx") * (PIPELINED + 1))
        statuses = await read_statuses(reader, PIPELINED + 1)
        writer.close()
        return statuses

    statuses, app = run(story)
    assert statuses == [200] * (PIPELINED + 1)
    assert app.bodies == [b"x"] * (PIPELINED + 1)


def test_too_many_requests_ahead_close_the_connection_and_cancel_the_running_one():
    async def story(app, port):
        app.hold.clear()
        statuses = await statuses_of(port, (HEAD + b"Content-Length: 1\r\n\r\nx") * 5000)
        async with asyncio.timeout(5):
            while not app.left:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        return statuses

    statuses, app = run(story)
    assert (statuses, app.left) == ([], 1)


def test_a_caller_that_leaves_cancels_its_first_request_too():
    """uvicorn itself informs only the last request of a connection."""

    async def story(app, port):
        app.hold.clear()
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write((HEAD + b"Content-Length: 1\r\n\r\nx") * 2)
        await asyncio.sleep(0.1)
        writer.transport.abort()
        async with asyncio.timeout(5):
            while not app.left:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    _, app = run(story)
    assert (app.bodies, app.left) == ([b"x"], 1)


def test_an_unread_answer_closes_the_connection(monkeypatch):
    monkeypatch.setattr(connections, "READ_S", 0.2)

    async def story(app, port):
        app.answer = b"x" * 2**25
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.transport.pause_reading()
        writer.write(HEAD + b"Content-Length: 0\r\n\r\n")
        await asyncio.sleep(1)
        writer.transport.resume_reading()
        size = 0
        with contextlib.suppress(OSError):
            async with asyncio.timeout(10):
                while piece := await reader.read(2**20):
                    size += len(piece)
        writer.close()
        return size

    size, app = run(story)
    assert size < len(app.answer)


def test_with_too_many_silent_connections_the_oldest_is_closed(monkeypatch):
    monkeypatch.setattr(BoundedConnection, "most_idle", 3)

    async def story(_app, port):
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(5)]
        answer = await statuses_of(port, HEAD + b"Content-Length: 0\r\nConnection: close\r\n\r\n")
        async with asyncio.timeout(5):
            closed = [await reader.read() for reader, _ in silent[:3]]
        still = [not reader.at_eof() for reader, _ in silent[3:]]
        for _, writer in silent:
            writer.close()
        await asyncio.sleep(0.1)
        return answer, closed, still

    assert run(story)[0] == ([200], [b""] * 3, [True] * 2)
