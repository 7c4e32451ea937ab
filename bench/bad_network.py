"""A bad network between a client and a service on one machine: a TCP proxy with faults that can be switched on.

No data is lost silently. As with TCP, bytes arrive late or the connection ends.
"""

import asyncio
import contextlib
import random
import socket
import struct
import threading
from types import TracebackType
from typing import Self

PIECE = 2**14
SLOW_PIECE = 256
RESET_AT_CLOSE = struct.pack("ii", 1, 0)
"""The value of SO_LINGER that resets a connection when it is closed: on, for zero seconds."""


class BadNetwork:
    """Forwards connections to a port of this machine. The network is good until a fault is switched on."""

    def __init__(self, port: int):
        """Forwards nothing yet.

        Args:
            port: The port of the service.
        """
        self._port = port
        self._dice = random.Random(0)  # noqa: S311  reproducible, not secret
        self._loop = asyncio.new_event_loop()
        self._line = asyncio.Lock()  # one piece at a time on a slow network
        self._open = asyncio.Event()
        self._open.set()
        self._bytes_per_s = 0.0
        self._loss = 0.0
        self.resets = 0
        """Number of connections that were reset."""

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._loop.run_forever, name="bad network")
        self._thread.start()
        server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._connection, "127.0.0.1", 0), self._loop
        )
        self._server = server.result()
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def cut(self) -> None:
        """Stops all traffic. Connections stay open, as with TCP, which sends lost packets again later."""
        self._loop.call_soon_threadsafe(self._open.clear)

    def mend(self) -> None:
        """Ends all faults, so everything passes immediately."""
        self._bytes_per_s = self._loss = 0.0
        self._loop.call_soon_threadsafe(self._open.set)

    def slow_down(self, bytes_per_s: float) -> None:
        """Limits the bytes per second of all connections together."""
        self._bytes_per_s = bytes_per_s

    def lose(self, share: float) -> None:
        """Resets a connection with this probability at each piece of its data."""
        self._loss = share

    async def _close(self) -> None:
        self._server.close()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._open.wait()
        try:
            there, to_there = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            _reset(writer)
            return
        ways = [
            asyncio.create_task(self._pass_on(reader, to_there)),
            asyncio.create_task(self._pass_on(there, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            for way in ways:
                way.cancel()
            results = await asyncio.gather(*ways, return_exceptions=True)
            broken = any(isinstance(result, Exception) for result in results)
            for end in (writer, to_there):
                _reset(end) if broken else end.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forwards one direction of a connection, until its sender ends it.

        Raises:
            ConnectionError: The connection is lost.
        """
        while data := await reader.read(PIECE):
            await self._open.wait()
            if self._dice.random() < self._loss:
                self.resets += 1
                raise ConnectionResetError
            if self._bytes_per_s:
                await self._slowly(data, writer)
            else:
                writer.write(data)
            await writer.drain()
        with contextlib.suppress(OSError):
            writer.write_eof()

    async def _slowly(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        for start in range(0, len(data), SLOW_PIECE):
            piece = data[start : start + SLOW_PIECE]
            async with self._line:
                if self._bytes_per_s:
                    await asyncio.sleep(len(piece) / self._bytes_per_s)
            writer.write(piece)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Ends a connection as a crash does: the other side gets an error, and not a normal end."""
    sock: socket.socket | None = writer.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
    writer.transport.abort()
