"""What a request meets first: its key, its length, and a bound on how long its body may take.

It stands in Ray's proxy, which would otherwise keep whatever anybody sends, and once more around each replica's
application, since a cluster of others has no proxy of ours. It never parses a body.
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
"""How long a replica's queue is taken for full after it refused a request. A refusal by the replica costs the proxy and
the replica some milliseconds of work; the queue holds more than this moment's.
"""
_LENGTH = re.compile(rb"\d{1,18}")


Check = Callable[[str, str | None], None]


class GateRules(BaseModel):
    """What may pass."""

    model_config = ConfigDict(frozen=True)

    key_sha256: tuple[str, ...] = ()
    """Digests of the keys that are accepted; empty: no key is asked for."""
    max_body_bytes: int
    """Size of one body, in bytes."""
    body_timeout_s: float
    """How long one body may take to arrive, in seconds."""
    max_held_bytes: int
    """Size of all bodies of requests that are not answered yet, in bytes."""
    max_requests: int
    """How many requests may be unanswered."""


def rules_of(front: FrontSettings, limits: LimitSettings, key_sha256: Sequence[str]) -> GateRules:
    """The rules that settings mean."""
    return GateRules(
        key_sha256=tuple(key_sha256),
        max_body_bytes=limits.max_body_bytes,
        body_timeout_s=front.body_timeout_s,
        max_held_bytes=front.max_held_bytes,
        max_requests=front.max_requests,
    )


class Gate:
    """An ASGI application around another one."""

    def __init__(self, app: App, rules: GateRules, state: StateFile | None = None, check: Check | None = None):
        """Lets nothing through yet.

        Args:
            app: What answers the requests that pass.
            rules: What may pass.
            state: Of the service; with it, the gate answers probes, and refuses what no replica could answer.
            check: Called with a request's path and its header `Judge-Timeout` before its body is read; may raise
                HttpError.
        """
        self._app = app
        self._rules = rules
        self._state = state
        self._check = check
        self._in_work = None if state is None else InWork(state.in_work)
        self._held_bytes = 0
        self._requests: set[AsgiRequest] = set()  # that are not answered yet
        self._watching: asyncio.Task[None] | None = None
        self._full_until = 0.0  # of the loop's clock
        self._full_retry = 1

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Handles one connection's request."""
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
                logger.debug("a caller left while it sent its body")

    async def _http(self, request: AsgiRequest) -> None:
        path = request.scope["path"]
        if not is_allowed(path, request.header(b"authorization"), self._rules.key_sha256):
            raise HttpError(401, "no_key", "this service wants a key: Authorization: Bearer KEY")
        if not path.startswith("/"):
            raise HttpError(404, "no_route", "this service has paths that begin with /")
        if self._state is not None and await self._answered(request, path):
            return
        self._check_length(request)
        if self._check is not None:
            self._check(path, request.header(b"judge-timeout"))
        if len(self._requests) >= self._rules.max_requests:
            raise HttpError(
                429, "busy", f"{len(self._requests)} requests are not answered yet. Come back later", retry=1
            )
        if self._state is not None and self._watching is None:
            self._watching = asyncio.create_task(self._abandon_without_replicas(self._state))
        if self._state is not None and request.scope["method"] == "POST":
            self._check_room()
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
            HttpError: It did not.
        """
        if self._in_work is None:
            await request.forward(self._app)
            return
        name = uuid.uuid4().hex
        request.set_header(HEADER.encode(), name.encode())
        try:
            await request.forward(self._app)
        except HttpError as refusal:
            if self._in_work.was(name):
                raise judge_died("the replica died while it worked on this request") from refusal
            raise

    async def _abandon_without_replicas(self, state: StateFile) -> None:
        """Refuses what was let through when the last replica dies: Ray would let it wait for the next one."""
        while True:
            await asyncio.sleep(READ_EVERY_S)
            seen = state.read()
            if seen.phase in ("starting", "broken"):
                for request in list(self._requests):
                    request.abandon(seen.reason)

    async def _answered(self, request: AsgiRequest, path: str) -> bool:
        """Whether the answer is known without a replica.

        Raises:
            HttpError: No replica could answer.
        """
        assert self._state is not None  # noqa: S101  its caller looked
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
        """Refuses for a moment what follows a request that a replica's queue had no room for.

        Raises:
            HttpError: The queue was full a moment ago.
        """
        if asyncio.get_running_loop().time() < self._full_until:
            raise HttpError(429, "busy", "the queue is full. Come back later, or add replicas", retry=self._full_retry)

    def _check_length(self, request: AsgiRequest) -> None:
        """Refuses what can be refused without reading a byte of the body."""
        length = request.headers.get(b"content-length", b"0")
        if not _LENGTH.fullmatch(length):
            raise HttpError(400, "bad_request", "Content-Length: not a number of bytes")
        if int(length) > self._rules.max_body_bytes:
            raise self._too_large()
        if request.headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise HttpError(
                415, "bad_request", "Content-Encoding: bodies are not decompressed here. Send them as they are"
            )

    async def _read(self, request: AsgiRequest) -> int:
        """Reads the body into the request; returns its size.

        Raises:
            HttpError: It is too large, or too slow, or there is no room for it.
        """
        limit = self._rules.body_timeout_s
        size = 0
        try:
            async with asyncio.timeout(limit):
                async for chunk in request.chunks():
                    size += len(chunk)
                    self._held_bytes += len(chunk)
                    if size > self._rules.max_body_bytes:
                        raise self._too_large()
                    if self._held_bytes > self._rules.max_held_bytes:
                        message = "the bodies of requests in work fill the memory that they may take. Come back later"
                        raise HttpError(429, "busy", message, retry=1)
        except BaseException as error:
            request.forget_body()
            self._held_bytes -= size
            if isinstance(error, TimeoutError):
                message = f"the body did not arrive within {limit:g} s. Send it faster, or send less"
                raise HttpError(408, "slow_body", message) from error
            raise
        return size

    def _too_large(self) -> HttpError:
        message = f"the body exceeds {self._rules.max_body_bytes} bytes. Send fewer candidates, or smaller images"
        return HttpError(413, "too_large", message)
