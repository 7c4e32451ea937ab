"""The gate: the first checks of a request. The gate checks its key, its length and the time that its body needs.

The gate runs in Ray's proxy, which would otherwise keep bodies of any size in memory. The gate also runs around each
replica's application, since the proxy of a joined cluster has no gate. The gate never parses a body.
"""

import asyncio
import logging
import re
import uuid
from collections.abc import Callable, Sequence

from pydantic import BaseModel, ConfigDict

from judge_service.front.asgi import App, AsgiRequest, Gone, Message, Receive, Send
from judge_service.front.auth import is_allowed
from judge_service.front.errors import HttpError, judge_died
from judge_service.front.in_work import HEADER, InWork
from judge_service.front.state import READ_EVERY_S, StateFile
from judge_service.settings import FrontSettings, LimitSettings

logger = logging.getLogger(__name__)

QUEUE_FULL_S = 0.05
"""Seconds during which the queue counts as full after a replica rejected a request.

A rejection by the replica costs proxy and replica some milliseconds. The queue holds more work than this time.
"""
_LENGTH = re.compile(rb"\d{1,18}")


Check = Callable[[str, str | None], None]


class GateRules(BaseModel):
    """The limits of requests at the gate."""

    model_config = ConfigDict(frozen=True)

    key_sha256: tuple[str, ...] = ()
    """The SHA-256 of each accepted key. Empty: no key is required."""
    max_body_bytes: int
    """The largest size of a body, in bytes."""
    body_timeout_s: float
    """The longest time until a body has arrived, in seconds."""
    max_held_bytes: int
    """The largest size of all bodies of unanswered requests, in bytes."""
    max_requests: int
    """The largest number of unanswered requests."""


def rules_of(front: FrontSettings, limits: LimitSettings, key_sha256: Sequence[str]) -> GateRules:
    """Returns the rules of these settings."""
    return GateRules(
        key_sha256=tuple(key_sha256),
        max_body_bytes=limits.max_body_bytes,
        body_timeout_s=front.body_timeout_s,
        max_held_bytes=front.max_held_bytes,
        max_requests=front.max_requests,
    )


class Gate:
    """An ASGI application around another application."""

    def __init__(
        self, app: App, rules: GateRules, state: StateFile | None = None, check: Check | None = None
    ):
        """Creates the gate.

        Args:
            app: The application that answers accepted requests.
            rules: The limits of requests.
            state: The state of the service. With a state, the gate answers health probes, and rejects requests while no
                replica runs.
            check: A function that is called before a body is read, with the path of the request and its header
                `Judge-Timeout`. The function may raise HttpError.
        """
        self._app = app
        self._rules = rules
        self._state = state
        self._check = check
        self._in_work = None if state is None else InWork(state.in_work)
        self._held_bytes = 0
        self._requests: set[AsgiRequest] = set()  # unanswered
        self._watching: asyncio.Task[None] | None = None
        self._full_until = 0.0  # on the loop's clock
        self._full_retry = 1

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Handles a request."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        elif scope["type"] != "http":
            await self._app(scope, receive, send)
        else:
            request = AsgiRequest(scope, receive, send)
            try:
                await self._http(request)
            except HttpError as refusal:
                await request.refuse(refusal)
            except Gone:
                logger.debug("a client closed its connection while it sent a body")

    async def _http(self, request: AsgiRequest) -> None:
        # Some paths need no replica.
        path = request.scope["path"]
        if not is_allowed(path, request.header(b"authorization"), self._rules.key_sha256):
            raise HttpError(
                401,
                "no_key",
                "this service requires a key. Send the header Authorization: Bearer KEY",
            )
        if not path.startswith("/"):
            raise HttpError(
                404, "no_route", "the path of the request does not begin with /. Correct the path"
            )
        if self._state is not None and await self._answered(request, path):
            return

        # Reject what can be rejected before the body is read.
        self._check_length(request)
        if self._check is not None:
            self._check(path, request.header(b"judge-timeout"))
        if len(self._requests) >= self._rules.max_requests:
            raise HttpError(
                429, "busy", f"{len(self._requests)} requests are unanswered. Retry later", retry=1
            )
        if self._state is not None and self._watching is None:
            self._watching = asyncio.create_task(self._abandon_without_replicas(self._state))
        if self._state is not None and request.scope["method"] == "POST":
            self._check_room()

        # Read the body within the limits, and let the application answer.
        self._requests.add(request)
        held = 0
        try:
            if request.has_body:
                held = await self._read(request)
            request.strip()
            await self._forward(request)
            if request.retry_after.isdecimal():
                self._full_until = asyncio.get_running_loop().time() + QUEUE_FULL_S
                self._full_retry = int(request.retry_after)
        finally:
            self._requests.discard(request)
            self._held_bytes -= held

    async def _forward(self, request: AsgiRequest) -> None:
        """Lets the application answer.

        Raises:
            HttpError: The application gave no answer.
        """
        if self._in_work is None:
            await request.forward(self._app)
            return

        # If the replica dies, its note shows whether it worked on this request.
        name = uuid.uuid4().hex
        request.set_header(HEADER.encode(), name.encode())
        try:
            await request.forward(self._app)
        except HttpError as refusal:
            if self._in_work.was(name):
                raise judge_died("the replica died while it worked on this request") from refusal
            raise

    async def _abandon_without_replicas(self, state: StateFile) -> None:
        """Rejects all unanswered requests when the last replica dies. Ray would let them wait for a new replica."""
        while True:
            await asyncio.sleep(READ_EVERY_S)
            current = state.read()
            if current.phase in ("starting", "broken"):
                for request in list(self._requests):
                    request.abandon(current.reason)

    async def _answered(self, request: AsgiRequest, path: str) -> bool:
        """Answers a request that needs no replica. Returns whether the request was answered.

        Raises:
            HttpError: The service is not ready.
        """
        assert self._state is not None  # noqa: S101  the caller has checked this
        if path == "/healthz":
            await request.respond(200, b'{"status":"alive"}')
            return True
        state = self._state.read()
        if path == "/readyz" and state.ready:
            await request.respond(200, b'{"status":"ready"}')
            return True
        if path == "/readyz" or state.phase != "serving":
            raise HttpError(503, "not_ready", state.reason, retry=1)
        return False

    def _check_room(self) -> None:
        """Returns unless a replica's queue was full a moment ago.

        Raises:
            HttpError: The queue was full.
        """
        if asyncio.get_running_loop().time() < self._full_until:
            raise HttpError(
                429,
                "busy",
                "the queue is full. Retry later, or add replicas",
                retry=self._full_retry,
            )

    def _check_length(self, request: AsgiRequest) -> None:
        """Checks the headers that describe the body.

        Raises:
            HttpError: The body is too large, its length is invalid, or the body is compressed.
        """
        length = request.headers.get(b"content-length", b"0")
        if not _LENGTH.fullmatch(length):
            raise HttpError(
                400, "bad_request", "Content-Length: not a number. Send the bytes of the body"
            )
        if int(length) > self._rules.max_body_bytes:
            raise self._too_large()
        if request.headers.get(b"content-encoding", b"identity").lower() != b"identity":
            message = "Content-Encoding: this service does not decompress bodies. Send the body uncompressed"
            raise HttpError(415, "bad_request", message)

    async def _read(self, request: AsgiRequest) -> int:
        """Reads the body into the request, and returns its size in bytes.

        Raises:
            HttpError: The body is too large or too slow, or all bodies together are too large.
        """
        limit_s = self._rules.body_timeout_s
        size = 0
        try:
            async with asyncio.timeout(limit_s):
                async for chunk in request.chunks():
                    size += len(chunk)
                    self._held_bytes += len(chunk)
                    if size > self._rules.max_body_bytes:
                        raise self._too_large()
                    if self._held_bytes > self._rules.max_held_bytes:
                        message = "the bodies of unanswered requests use all memory for bodies. Retry later"
                        raise HttpError(429, "busy", message, retry=1)
        except BaseException as error:
            request.forget_body()
            self._held_bytes -= size
            if isinstance(error, TimeoutError):
                message = f"the body did not arrive within {limit_s:g} s. Send faster, or send a smaller body"
                raise HttpError(408, "slow_body", message) from error
            raise
        return size

    def _too_large(self) -> HttpError:
        message = f"the body exceeds {self._rules.max_body_bytes} bytes. Send fewer candidates, or smaller images"
        return HttpError(413, "too_large", message)
