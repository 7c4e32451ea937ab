"""One request as ASGI has it: its body is read here, within whatever bounds a reader sets, and handed on whole."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

from judge_service.front.refusals import Refusal

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

logger = logging.getLogger(__name__)

DISCARD_S = 1.0
"""How long the rest of a refused body is read and thrown away: who is cut while sending never sees the answer."""
STRIPPED = frozenset({b"x-request-timeout-seconds", b"x-request-disconnect-disabled"})
"""Headers by which a caller could switch Ray's time limits off."""


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
        self._begun = False  # the answer

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
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise Gone
            self._whole = not message.get("more_body", False)
            chunk = message.get("body", b"")
            self._body += chunk
            yield chunk

    def forget_body(self) -> None:
        """Lets go of what was read."""
        self._body = bytearray()

    def strip(self) -> None:
        """Removes the headers that steer Ray."""
        kept = [(name, value) for name, value in self.scope["headers"] if name.lower() not in STRIPPED]
        self.scope = {**self.scope, "headers": kept}

    async def forward(self, app: App) -> None:
        """Lets an application answer; what it did not say in our words is said in them.

        Raises:
            Refusal: The application has failed, or Ray answered in its place: no replica did.
        """
        handed = not self.has_body

        async def receive() -> Message:
            nonlocal handed
            if handed:
                return await self._receive()
            handed = True
            body, self._body = bytes(self._body), bytearray()
            return {"type": "http.request", "body": body, "more_body": False}

        foreign = 0

        async def send(message: Message) -> None:
            nonlocal foreign
            if message["type"] == "http.response.start":
                kinds = [value for name, value in message["headers"] if name.lower() == b"content-type"]
                if message["status"] >= 400 and kinds != [b"application/json"]:
                    foreign = message["status"]
            if not foreign:
                self._begun = True
                await self._send(message)

        try:
            await app(self.scope, receive, send)
        except Exception as error:
            if self._begun:
                raise
            logger.exception("%s %s failed", self.scope["method"], self.scope["path"])
            raise Refusal(500, "internal", "the judge failed on this request; its log says why") from error
        if foreign:
            raise Refusal(503, "not_ready", f"no replica answered (status {foreign} in between). Try again", retry=1)

    async def respond(self, status: int, body: bytes, headers: list[tuple[bytes, bytes]] | None = None) -> None:
        """Sends a whole answer."""
        fields = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await self._send({"type": "http.response.start", "status": status, "headers": fields + (headers or [])})
        await self._send({"type": "http.response.body", "body": body})

    async def refuse(self, refusal: Refusal) -> None:
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
