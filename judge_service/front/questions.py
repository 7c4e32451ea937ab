"""The common part of the routes with a query and candidates: read the request, wait in the queue, work, answer."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import Request, Response

from judge_service.front.admission import Admission
from judge_service.front.blobs import BlobStore
from judge_service.front.bodies import read_request, work_of
from judge_service.front.errors import COMPATIBLE_PATHS, HttpError, judge_errors_as_http
from judge_service.front.in_work import HEADER, InWork
from judge_service.settings import LimitSettings
from unijudge.content import Content
from unijudge.judging.protocol import (
    ChooseResponse,
    CountResponse,
    ScoreRequest,
    ScoreResponse,
    ServiceInfo,
)

PATHS = frozenset({"/v1/score", "/v1/choose", "/v1/count"}) | COMPATIBLE_PATHS

_COSTS: dict[str, Any] = {"result": {"cost"}, "results": {"__all__": {"cost"}}}
"""The fields of an answer that a caller gets only with `explain`."""

A = TypeVar("A", ScoreResponse, ChooseResponse, CountResponse)


@dataclass(frozen=True)
class Question:
    """A query and its candidates, with their images in memory."""

    query: Content
    candidates: list[Content]
    explain: bool = False
    """Whether the caller needs the cost of each answer."""


class Questions:
    """Answers requests about pairs, in the order of the queue."""

    def __init__(
        self,
        info: ServiceInfo,
        limits: LimitSettings,
        blobs: BlobStore | None,
        admission: Admission,
        request_timeout_s: float,
        replica: str,
        in_work: InWork | None,
    ):
        self.info = info
        self._limits = limits
        self._blobs = blobs
        self._admission = admission
        self._request_timeout_s = request_timeout_s
        self._replica = replica
        self._in_work = in_work

    async def answer(
        self, http: Request, work: Callable[[Question], Coroutine[Any, Any, A]]
    ) -> Response:
        """Answers a request in the service's own protocol.

        Args:
            http: The request.
            work: The function from the question to the answer.

        Raises:
            HttpError: The request cannot be answered.
        """
        self.check_pin(http)
        question = await self._question(await http.body())
        async with self.turn(http, work_of(question.query, question.candidates)):
            answer = await work(question)
        return self.response(answer.model_dump_json(exclude=None if question.explain else _COSTS))

    @asynccontextmanager
    async def turn(self, http: Request, work: float) -> AsyncIterator[None]:
        """Waits in the queue, and keeps a slot of the judge while the block runs.

        Args:
            http: The request.
            work: The amount of work of the block (`work_of`).

        Raises:
            HttpError: The request cannot be answered in time, or the judge failed.
        """
        patience = self._patience_s(http.headers.get("Judge-Timeout"))
        alone = http.headers.get("Judge-Alone") == "1"
        with judge_errors_as_http():
            async with self._admission.turn(work, patience, alone=alone):
                with self._noted(http.headers.get(HEADER)):
                    yield

    def response(self, body: str) -> Response:
        """Returns a response with the judge's digest and the replica's name."""
        headers = {"ETag": f'"{self.info.digest}"', "Judge-Replica": self._replica}
        return Response(body, media_type="application/json", headers=headers)

    def _noted(self, name: str | None) -> AbstractContextManager[None]:
        """Notes for the gate in Ray's proxy that the request is running. A proxy of a joined cluster has no gate."""
        return nullcontext() if self._in_work is None else self._in_work.noted(name)

    def check(self, path: str, judge_timeout: str | None) -> None:
        """Rejects a request that could not be answered in time. The gate calls this before it reads the body.

        Args:
            path: The path of the request.
            judge_timeout: The header `Judge-Timeout`.

        Raises:
            HttpError: The queue is too long, or the service is being stopped.
        """
        if path in PATHS:
            with judge_errors_as_http():
                self._admission.check(self._patience_s(judge_timeout))

    def _patience_s(self, judge_timeout: str | None) -> float:
        """Returns the seconds that the caller waits for its answer, at most the timeout of the service."""
        if judge_timeout is None:
            return self._request_timeout_s
        with suppress(ValueError):
            if (seconds := float(judge_timeout)) > 0:
                return min(seconds, self._request_timeout_s)
        raise HttpError(
            400,
            "bad_request",
            f"Judge-Timeout: {judge_timeout[:40]!r} is not a number above 0. Send the seconds that you wait",
        )

    async def _question(self, body: bytes) -> Question:
        request = await asyncio.to_thread(read_request, body, self._limits)
        images = await asyncio.to_thread(
            _load_images, request, self._blobs, self._limits.max_body_bytes
        )
        query, *candidates = (
            content.content(images) for content in (request.query, *request.candidates)
        )
        return Question(query, candidates, request.explain)

    def check_pin(self, http: Request) -> None:
        """Rejects a request that was meant for another judge.

        Raises:
            HttpError: The header `If-Match` names other judges.
        """
        header = http.headers.get("If-Match", "*")
        pins = [pin.strip().removeprefix("W/").strip('"') for pin in header.split(",")]
        if "*" not in pins and self.info.digest not in pins:
            message = f"the request is for judge {', '.join(pins)}, but this service runs {self.info.identity}"
            raise HttpError(412, "other_judge", message)


def _load_images(
    request: ScoreRequest, blobs: BlobStore | None, max_bytes: int
) -> dict[str, bytes]:
    """Returns the images that a request names by hash."""
    names = {
        content.image_sha256
        for content in (request.query, *request.candidates)
        if content.image_sha256
    }
    if names and blobs is None:
        raise HttpError(
            400, "no_blobs", "this service does not store images: send images inside the request"
        )

    # Images that are named by hash have the same limit as a body.
    images: dict[str, bytes] = {}
    room = max_bytes
    for name in sorted(names):
        data = blobs.get(name) if blobs else None
        if data is not None:
            images[name] = data
            room -= len(data)
        if room < 0:
            message = f"the images of this request exceed {max_bytes} bytes. Send fewer candidates"
            raise HttpError(413, "too_large", message)

    missing = sorted(names - images.keys())
    if missing:
        cure = "Send each image with PUT /v1/blobs/SHA256, then repeat the request"
        raise HttpError(
            409,
            "unknown_blobs",
            f"the service does not have {len(missing)} images. {cure}",
            missing,
        )
    return images
