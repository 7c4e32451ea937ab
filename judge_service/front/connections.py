"""Limits of a connection before the gate gets a request. uvicorn, which Ray's proxy runs, has no such limits.

- The head of a request is limited in bytes and in time. The bytes around the parts of a body have limits too.
- The number of requests that wait for earlier answers of the same connection is limited.
- An answer that the client does not read ends the connection after some time.
- If there are too many connections without a request, the oldest is closed. So a new connection is always accepted.

Without these limits, eight connections with an endless header and without a key stopped the proxy in a measurement.
"""

import asyncio
from typing import Any, ClassVar

from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from judge_service.front.errors import HttpError

HEAD_BYTES = 2**16
"""The largest size of a head. A single received piece may be larger.

The bytes around the parts of a body have the same limit, plus one byte for each byte of the body.
"""
HEAD_S = 20
"""Seconds until a head must have arrived. After an answer, uvicorn's keep-alive time is added."""
PIPELINED = 8
"""The largest number of requests of a connection that wait for an earlier answer."""
READ_S = 60
"""Seconds after which a client must continue to read an answer."""


class TooManyPipelined(Exception):
    """A client sends too many requests without waiting for answers."""


class BoundedConnection(HttpToolsProtocol):
    """A connection with limits."""

    most_idle: ClassVar[int] = 4096
    """The largest number of connections without a request: new connections, and connections that are kept alive."""
    _idle: ClassVar[dict["BoundedConnection", None]] = {}
    """The connections without a request, in the order of their waiting time. The longest comes first."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        """Creates a connection. uvicorn calls this."""
        super().__init__(*arguments, **named)
        self._framing = 0
        """Bytes of the message that are not part of its body."""
        self._deadline: asyncio.TimerHandle | None = None
        """The timeout of the next head."""
        self._unread: asyncio.TimerHandle | None = None
        """The timeout of an answer that the client does not read."""
        self._running: RequestResponseCycle | None = None
        """The request that is being answered."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Handles a new connection."""
        super().connection_made(transport)
        self._wait_for_head(HEAD_S)

    def connection_lost(self, exc: Exception | None) -> None:
        """Handles a connection that the client or the server closed."""
        self.stop_waiting()
        self._stop_unread()
        self._leave()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Handles received bytes."""
        self._framing += len(data)
        super().data_received(data)
        if self._framing > HEAD_BYTES and not self.transport.is_closing():
            self._refuse()

    def on_message_begin(self) -> None:
        """Handles the first byte of a request."""
        super().on_message_begin()
        self._framing = 0

    def on_headers_complete(self) -> None:
        """Handles the end of a head.

        Raises:
            TooManyPipelined: Too many requests of this connection wait. uvicorn then stops reading.
        """
        self.stop_waiting()
        if len(self.pipeline) >= PIPELINED:
            self._cut()
            raise TooManyPipelined
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Handles a part of a body."""
        self._framing -= 2 * len(body)
        super().on_body(body)

    def on_response_complete(self) -> None:
        """Handles the end of an answer."""
        is_last = not self.pipeline
        super().on_response_complete()
        if is_last and not self.transport.is_closing():
            self._wait_for_head(self.timeout_keep_alive + HEAD_S)

    def pause_writing(self) -> None:
        """Handles a client that does not read its answer."""
        super().pause_writing()
        self._unread = self.loop.call_later(READ_S, self._cut)

    def resume_writing(self) -> None:
        """Handles a client that continues to read."""
        super().resume_writing()
        self._stop_unread()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _cut(self) -> None:
        """Closes the connection immediately."""
        self._leave()
        self.transport.abort()

    def _leave(self) -> None:
        """Notifies the request that is being answered. uvicorn only notifies the last request of the connection."""
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
        """Ends the wait for a head."""
        self._idle.pop(self, None)
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _stop_unread(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _refuse(self) -> None:
        """Sends an error unless an answer is being sent, and closes the connection."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._cut()
            return
        body = HttpError(
            431, "too_large", f"the head exceeds {HEAD_BYTES} bytes. Send fewer or shorter headers"
        ).body
        content = body.model_dump_json().encode()
        head = "HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: application/json\r\nconnection: close\r\n"
        self.transport.write(f"{head}content-length: {len(content)}\r\n\r\n".encode() + content)
        self.transport.close()
