"""One request as ASGI has it: its body is read here, within whatever bounds a reader sets, and handed on whole."""

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
"""How long the rest of a refused body is read and thrown away: who is cut while sending never sees the answer."""
STEERING = re.compile(rb"x_request_(timeout_seconds|disconnect_disabled)|serve_.*|x_session_id|x_serve_router_.*")
"""Headers, with `_` for `-`, by which a caller could switch Ray's time limits off or choose a replica."""
REQUEST_ID = re.compile(rb"[!-~]{1,200}")
"""What Ray's proxy can put into its log; it fails on bytes that are not UTF-8."""


def _passes(name: bytes, value: bytes) -> bool:
    """Whether Ray may see this header."""
    if name == b"x-request-id":
        return REQUEST_ID.fullmatch(value) is not None
    return not STEERING.fullmatch(name.replace(b"-", b"_"))


class Gone(Exception):
    """The caller left while it sent its body."""


class AsgiRequest:
    """One request."""

    def __init__(self, scope: Message, receive: Receive, send: Send):
        self.scope = scope
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self._receive = receive
        self._send = send
        self._body = bytearray()
        self._whole = not self.has_body
        self._asked_for = b"expect" not in self.headers  # the body: a caller may wait until somebody reads it
        self._handed = not self.has_body  # the body, to the application
        self._begun = False  # the answer
        self._foreign = 0  # the status of an error that is not in our words
        self.retry_after = ""
        """What an answer said of a queue that takes nobody; empty after any other."""
        self._task: asyncio.Task[Any] | None = None  # that forwards it
        self._abandoned = ""  # why nobody can answer it any more

    @property
    def has_body(self) -> bool:
        """Whether a body was announced."""
        return b"transfer-encoding" in self.headers or self.headers.get(b"content-length", b"0") != b"0"

    def header(self, name: bytes) -> str | None:
        """A header's value, by its name in lower case."""
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body, piece by piece; it is kept."""
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
        """What the connection says. In a replica Ray raises where the caller has left, or its proxy has died."""
        try:
            return await self._receive()
        except Exception as error:  # noqa: BLE001  several, and all of the connection
            logger.debug("the connection is gone: %s", error)
            return {"type": "http.disconnect"}

    def forget_body(self) -> None:
        """Lets go of what was read."""
        self._body = bytearray()

    def strip(self) -> None:
        """Removes the headers that steer Ray, or on which it fails."""
        kept = [(name, value) for name, value in self.scope["headers"] if _passes(name.lower(), value)]
        self.scope = {**self.scope, "headers": kept}

    def set_header(self, name: bytes, value: bytes) -> None:
        """Sets a header, whatever the caller sent by this name."""
        kept = [(other, said) for other, said in self.scope["headers"] if other.lower() != name]
        self.scope = {**self.scope, "headers": [*kept, (name, value)]}

    async def forward(self, app: App) -> None:
        """Lets an application answer; what it did not say in our words is said in them.

        Raises:
            HttpError: The application has failed, or Ray answered in its place: no replica did.
        """
        self._task = asyncio.current_task()
        try:
            await app(self.scope, self._receive_whole, self._send_ours)
        except asyncio.CancelledError as error:
            if self._abandoned and self._task is not None:
                self._task.uncancel()
            elif self._task is None or self._task.cancelling():  # the caller has left
                raise
            # Else Ray has cancelled what it waited for, not us.
            raise HttpError(503, "not_ready", self._abandoned or "the replica is gone. Try again", retry=1) from error
        except Exception as error:
            if self._begun:
                raise
            logger.exception("%s %s failed", self.scope["method"], self.scope["path"])
            raise HttpError(500, "internal", "the judge failed on this request; its log says why") from error
        if not self._begun:
            message = f"no replica answered (status {self._foreign or 'unknown'} in between). Try again"
            raise HttpError(503, "not_ready", self._abandoned or message, retry=1)

    async def _receive_whole(self) -> Message:
        """The body in one message, then what the connection says."""
        if self._handed:
            return await self._next()
        self._handed = True
        body, self._body = bytes(self._body), bytearray()
        return {"type": "http.request", "body": body, "more_body": False}

    async def _send_ours(self, message: Message) -> None:
        """Passes an answer of ours on; an error in other words than ours is remembered instead."""
        if message["type"] == "http.response.start":
            kinds = [value for name, value in message["headers"] if name.lower() == b"content-type"]
            if message["status"] >= 400 and kinds != [b"application/json"]:
                self._foreign = message["status"]
            elif message["status"] == 429:
                given = {name.lower(): value for name, value in message["headers"]}
                if b"judge-queue" in given:
                    self.retry_after = given.get(b"retry-after", b"1").decode("latin-1")
        if not self._foreign:
            self._begun = True
            await self._send(message)

    def abandon(self, reason: str) -> None:
        """Refuses it while it is forwarded, unless its answer has begun."""
        if self._task is not None and not self._begun and not self._abandoned:
            self._abandoned = reason
            self._task.cancel()

    async def respond(self, status: int, body: bytes, headers: list[tuple[bytes, bytes]] | None = None) -> None:
        """Sends a whole answer."""
        fields = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await self._send({"type": "http.response.start", "status": status, "headers": fields + (headers or [])})
        await self._send({"type": "http.response.body", "body": body})

    async def refuse(self, refusal: HttpError) -> None:
        """Says no; what is left of the body is thrown away."""
        headers = [(name.encode(), value.encode()) for name, value in refusal.headers.items()]
        if not self._whole and self._asked_for:
            with contextlib.suppress(TimeoutError, Gone):
                await asyncio.wait_for(self._discard(), DISCARD_S)
        if not self._whole:
            headers.append((b"connection", b"close"))
        await self.respond(refusal.status, refusal.body.model_dump_json().encode(), headers)

    async def _discard(self) -> None:
        async for _ in self.chunks():
            self.forget_body()
