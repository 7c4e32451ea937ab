"""An ASGI request. The gate reads its body within limits, and the application then gets the whole body."""

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

from judge_service.front.errors import HttpError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

logger = logging.getLogger(__name__)

DISCARD_S = 1.0
"""Seconds during which the rest of a rejected body is read and discarded.

A client whose connection closes while the client still sends never reads the answer.
"""
STEERING = re.compile(
    rb"x_request_(timeout_seconds|disconnect_disabled)|serve_.*|x_session_id|x_serve_router_.*"
)
"""Names of headers, with `_` for `-`, that could disable Ray's timeouts or choose a replica."""
REQUEST_ID = re.compile(rb"[!-~]{1,200}")
"""Request ids that Ray's proxy can write to its log. The proxy fails on bytes that are not UTF-8."""


def _passes(name: bytes, value: bytes) -> bool:
    """Whether Ray gets this header."""
    if name == b"x-request-id":
        return REQUEST_ID.fullmatch(value) is not None
    return not STEERING.fullmatch(name.replace(b"-", b"_"))


class Gone(Exception):
    """The client closed its connection while it sent a body."""


class AsgiRequest:
    """A request."""

    def __init__(self, scope: Message, receive: Receive, send: Send):
        self.scope = scope
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self._receive = receive
        self._send = send
        self._body = bytearray()
        self._whole = not self.has_body
        """Whether the whole body was read."""
        self._asked_for = b"expect" not in self.headers
        """Whether the client sends the body. With the header Expect, the client waits until the body is read."""
        self._handed = not self.has_body
        """Whether the application got the body."""
        self._begun = False
        """Whether the answer has started."""
        self._foreign = 0
        """The status of an error answer from Ray. 0: there was no such answer."""
        self.retry_after = ""
        """The header Retry-After of an answer with a full queue. Empty after any other answer."""
        self._task: asyncio.Task[Any] | None = None
        """The task that forwards the request."""
        self._abandoned = ""
        """The reason why no replica can answer the request. Empty if the request was not abandoned."""

    @property
    def has_body(self) -> bool:
        """Whether the headers announce a body."""
        return (
            b"transfer-encoding" in self.headers
            or self.headers.get(b"content-length", b"0") != b"0"
        )

    def header(self, name: bytes) -> str | None:
        """Returns the value of a header. The name must be in lower case."""
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yields the body in pieces, and keeps the whole body."""
        self._asked_for = True
        while not self._whole:
            message = await self._next()
            if message["type"] == "http.disconnect":
                raise Gone
            self._whole = not message.get("more_body", False)
            chunk = message.get("body", b"")
            self._body += chunk
            yield chunk

    async def _next(self) -> Message:
        """Returns the next message of the connection. In a replica, Ray raises if the client or the proxy is gone."""
        try:
            return await self._receive()
        except Exception as error:  # noqa: BLE001  Ray raises several kinds of errors, all about the connection
            logger.debug("the connection is closed: %s", error)
            return {"type": "http.disconnect"}

    def forget_body(self) -> None:
        """Frees the memory of the body."""
        self._body = bytearray()

    def strip(self) -> None:
        """Removes headers that control Ray, and headers on which Ray fails."""
        kept = [
            (name, value) for name, value in self.scope["headers"] if _passes(name.lower(), value)
        ]
        self.scope = {**self.scope, "headers": kept}

    def set_header(self, name: bytes, value: bytes) -> None:
        """Sets a header. Replaces a header of the client with the same name."""
        others = [
            (other, content) for other, content in self.scope["headers"] if other.lower() != name
        ]
        self.scope = {**self.scope, "headers": [*others, (name, value)]}

    async def forward(self, app: App) -> None:
        """Lets an application answer. Converts errors of the application and of Ray.

        Raises:
            HttpError: The application has failed, or Ray answered in the place of a replica.
        """
        self._task = asyncio.current_task()
        try:
            await app(self.scope, self._receive_whole, self._send_ours)
        except asyncio.CancelledError as error:
            if self._abandoned and self._task is not None:
                self._task.uncancel()
            elif self._task is None or self._task.cancelling():  # the client has left
                raise
            # Otherwise Ray has cancelled the replica's work, not this task.
            raise HttpError(
                503, "not_ready", self._abandoned or "the replica is gone. Retry", retry=1
            ) from error
        except Exception as error:
            if self._begun:
                raise
            logger.exception("%s %s failed", self.scope["method"], self.scope["path"])
            message = "the judge failed on this request. The log of the service has the cause"
            raise HttpError(500, "internal", message) from error
        if not self._begun:
            message = f"no replica answered (status {self._foreign or 'unknown'} from Ray). Retry"
            raise HttpError(503, "not_ready", self._abandoned or message, retry=1)

    async def _receive_whole(self) -> Message:
        """Returns the body in one message, and then the messages of the connection."""
        if self._handed:
            return await self._next()
        self._handed = True
        body, self._body = bytes(self._body), bytearray()
        return {"type": "http.request", "body": body, "more_body": False}

    async def _send_ours(self, message: Message) -> None:
        """Sends an answer of the application. Keeps only the status of an error answer from Ray."""
        if message["type"] == "http.response.start":
            headers = {name.lower(): value for name, value in message["headers"]}
            if message["status"] >= 400 and headers.get(b"content-type") != b"application/json":
                self._foreign = message["status"]
            elif message["status"] == 429 and b"judge-queue" in headers:
                self.retry_after = headers.get(b"retry-after", b"1").decode("latin-1")
        if not self._foreign:
            self._begun = True
            await self._send(message)

    def abandon(self, reason: str) -> None:
        """Rejects the request while it is forwarded, unless its answer has started."""
        if self._task is not None and not self._begun and not self._abandoned:
            self._abandoned = reason
            self._task.cancel()

    async def respond(
        self, status: int, body: bytes, headers: list[tuple[bytes, bytes]] | None = None
    ) -> None:
        """Sends a whole answer."""
        fields = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
        ]
        await self._send(
            {"type": "http.response.start", "status": status, "headers": fields + (headers or [])}
        )
        await self._send({"type": "http.response.body", "body": body})

    async def refuse(self, refusal: HttpError) -> None:
        """Sends an error, and discards the rest of the body."""
        headers = [(name.encode(), value.encode()) for name, value in refusal.headers.items()]
        if not self._whole and self._asked_for:
            with contextlib.suppress(TimeoutError, Gone):
                await asyncio.wait_for(self._discard(), DISCARD_S)
        if not self._whole:
            headers.append((b"connection", b"close"))
        await self.respond(refusal.status, refusal.text(self.scope["path"]).encode(), headers)

    async def _discard(self) -> None:
        async for _ in self.chunks():
            self.forget_body()
