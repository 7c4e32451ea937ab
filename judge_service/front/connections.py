"""What a connection may cost before the gate sees a request. uvicorn, which Ray's proxy runs, has no such bounds.

A head is bounded in bytes and in time, as is what stands between the parts of a body and after it. Requests that are
sent before earlier ones are answered are bounded in number, answers that nobody reads in time. Of the connections
without a request the oldest is closed where there are too many, so that a new one is always taken.

Measured without it: eight connections with an endless header, and no key, stopped the proxy.
"""

import asyncio
from typing import Any, ClassVar

from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from judge_service.front.errors import HttpError

HEAD_BYTES = 2**16
"""Of one head; a piece that arrives at once may be larger by itself. What frames a body has as much, and one more for
each byte of the body."""
HEAD_S = 20
"""How long a head may take to arrive; after an answer the time that a connection is kept alive comes on top."""
PIPELINED = 8
"""Requests that wait in one connection for the answer to an earlier one."""
READ_S = 60
"""How long an answer may wait until its caller reads on."""


class TooManyPipelined(Exception):
    """Of a connection that asks on without waiting for answers."""


class BoundedConnection(HttpToolsProtocol):
    """One connection."""

    most_idle: ClassVar[int] = 4096
    """Connections without a request: those that never had one, and those that were kept alive."""
    _idle: ClassVar[dict["BoundedConnection", None]] = {}
    """Those without a request; the one that waits for longest stands first."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        """Made by uvicorn."""
        super().__init__(*arguments, **named)
        self._framing = 0  # bytes of the message that are not of its body
        self._deadline: asyncio.TimerHandle | None = None  # of the next head
        self._unread: asyncio.TimerHandle | None = None  # of an answer
        self._running: RequestResponseCycle | None = None  # the request that is being answered

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A caller is there."""
        super().connection_made(transport)
        self._wait_for_head(HEAD_S)

    def connection_lost(self, exc: Exception | None) -> None:
        """The caller, or we, have closed it."""
        self.stop_waiting()
        self._stop_unread()
        self._leave()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Any bytes."""
        self._framing += len(data)
        super().data_received(data)
        if self._framing > HEAD_BYTES and not self.transport.is_closing():
            self._refuse()

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        self._framing = 0

    def on_headers_complete(self) -> None:
        """A head is whole.

        Raises:
            TooManyPipelined: Too many of them wait already. uvicorn then reads no further.
        """
        self.stop_waiting()
        if len(self.pipeline) >= PIPELINED:
            self._cut()
            raise TooManyPipelined
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of a body."""
        self._framing -= 2 * len(body)
        super().on_body(body)

    def on_response_complete(self) -> None:
        """A request is answered."""
        is_last = not self.pipeline
        super().on_response_complete()
        if is_last and not self.transport.is_closing():
            self._wait_for_head(self.timeout_keep_alive + HEAD_S)

    def pause_writing(self) -> None:
        """The caller does not read."""
        super().pause_writing()
        self._unread = self.loop.call_later(READ_S, self._cut)

    def resume_writing(self) -> None:
        """The caller reads on."""
        super().resume_writing()
        self._stop_unread()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _cut(self) -> None:
        """Closes at once."""
        self._leave()
        self.transport.abort()

    def _leave(self) -> None:
        """Tells the request that is being answered: uvicorn tells only the last one that came."""
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()

    def _wait_for_head(self, seconds: float) -> None:
        self._deadline = self.loop.call_later(seconds, self.transport.abort)
        self._idle[self] = None
        if len(self._idle) > self.most_idle:
            oldest = next(iter(self._idle))
            oldest.stop_waiting()
            oldest.transport.abort()

    def stop_waiting(self) -> None:
        """A head is here, or will never be."""
        self._idle.pop(self, None)
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _stop_unread(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _refuse(self) -> None:
        """Says why, where no answer is under way; and closes."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._cut()
            return
        body = HttpError(431, "too_large", f"the head exceeds {HEAD_BYTES} bytes. Send fewer or shorter headers").body
        content = body.model_dump_json().encode()
        head = "HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: application/json\r\nconnection: close\r\n"
        self.transport.write(f"{head}content-length: {len(content)}\r\n\r\n".encode() + content)
        self.transport.close()
