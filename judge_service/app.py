"""The HTTP application around any judge. Knows nothing of Ray, and runs under uvicorn as well.

It promises to read no more than the limits allow, to open no URL and no path that a client names, to answer one verdict
or one error for each candidate in order, and to score nothing for a client that pinned another judge. The images of a
request are in memory before its work begins: no eviction can take them.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ValidationError

from judge_service.auth import is_allowed
from judge_service.blobs import BlobStore
from judge_service.health import WatchedJudge
from judge_service.settings import LimitSettings
from unijudge.errors import BadImage, DataError, JudgeBroken, JudgeRefused, JudgeUnavailable
from unijudge.verdicts import JudgeIdentity
from unijudge.wire import ErrorBody, Limits, ScoreRequest, ScoreResponse, ServiceInfo

logger = logging.getLogger(__name__)

Next = Callable[[Request], Awaitable[Response]]
"""What handles a request that may pass."""


class Refusal(Exception):
    """A request as a whole cannot be answered: becomes an HTTP status and an ErrorBody."""

    def __init__(self, status: int, code: str, message: str, missing: Sequence[str] = ()):
        super().__init__(message)
        self.status = status
        self.body = ErrorBody(code=code, message=message, missing=list(missing))


def create_app(
    judge: WatchedJudge,
    limits: LimitSettings,
    key_sha256: Sequence[str] = (),
    blobs: BlobStore | None = None,
    replica: str = "0",
) -> FastAPI:
    """The application; it does not start before its judge has scored known pairs. `replica` names it in its answers."""
    info = ServiceInfo(
        identity=judge.identity,
        digest=judge.identity.digest,
        limits=Limits(**limits.model_dump(), blobs=blobs is not None),
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await judge.check_ready()
        yield

    app = FastAPI(title="unijudge judge service", lifespan=lifespan)
    app.add_exception_handler(Refusal, _refuse)
    app.middleware("http")(_border(key_sha256))

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """The process is alive."""
        return {"status": "alive"}

    @app.get("/readyz")
    async def readyz() -> dict[str, str]:
        """A real pair was scored lately, and the judge is fit to judge."""
        try:
            await judge.check_ready()
        except (JudgeUnavailable, JudgeBroken) as error:
            raise Refusal(503, "not_ready", str(error)) from error
        return {"status": "ready"}

    @app.get("/v1/identity")
    async def identity(response: Response) -> ServiceInfo:
        """Who judges, and the limits of a request."""
        response.headers["ETag"] = f'"{info.digest}"'
        return info

    @app.post("/v1/score", response_model=ScoreResponse, openapi_extra=_json_body(ScoreRequest))
    async def score(http: Request) -> Response:
        """One verdict or one error for each candidate, in order."""
        _check_pin(http, judge.identity)
        request = await _read(http, limits)
        images = await asyncio.to_thread(_load_images, request, blobs, limits.max_body_bytes)
        query, *candidates = (content.content(images) for content in (request.query, *request.candidates))
        try:
            results = await judge.judge(query, candidates)
        except JudgeRefused as error:
            raise Refusal(422, "bad_query", str(error)) from error
        except JudgeUnavailable as error:
            raise Refusal(503, "not_ready", str(error)) from error
        answer = ScoreResponse(identity=judge.identity, results=results)
        headers = {"ETag": f'"{info.digest}"', "Judge-Replica": replica}
        return Response(answer.model_dump_json(), media_type="application/json", headers=headers)

    _add_blobs(app, blobs, limits)
    return app


def _add_blobs(app: FastAPI, blobs: BlobStore | None, limits: LimitSettings) -> None:
    @app.put("/v1/blobs/{name}", responses={200: {}, 201: {}}, openapi_extra=_BINARY_BODY)
    async def put_blob(name: str, http: Request) -> Response:
        """Keeps an image under its sha256: 201, or 200 if it was there."""
        if blobs is None:
            raise Refusal(404, "no_blobs", "this service keeps no images: send them inside the requests")
        data = await _body(http, limits.max_body_bytes, "a smaller image")
        try:
            new = await asyncio.to_thread(blobs.put, name, data)
        except BadImage as error:
            raise Refusal(422, "bad_blob", str(error)) from error
        except DataError as error:
            raise Refusal(507, "no_room", str(error)) from error
        return Response(status_code=201 if new else 200)


def _load_images(request: ScoreRequest, blobs: BlobStore | None, max_bytes: int) -> dict[str, bytes]:
    """The images that a request names by their hashes."""
    names = {content.image_sha256 for content in (request.query, *request.candidates) if content.image_sha256}
    if names and blobs is None:
        raise Refusal(400, "no_blobs", "this service keeps no images: send them inside the request")
    images: dict[str, bytes] = {}
    room = max_bytes
    for name in sorted(names):
        data = blobs.get(name) if blobs else None
        if data is not None:
            images[name] = data
            room -= len(data)
        if room < 0:
            message = f"the images of this request exceed {max_bytes} bytes; send fewer candidates"
            raise Refusal(413, "too_large", message)
    missing = sorted(names - images.keys())
    if missing:
        message = f"{len(missing)} images are not here; send each with PUT /v1/blobs/SHA256, then the same request"
        raise Refusal(409, "unknown_blobs", message, missing)
    return images


def _check_pin(http: Request, identity: JudgeIdentity) -> None:
    pins = [pin.strip().removeprefix("W/").strip('"') for pin in http.headers.get("If-Match", "*").split(",")]
    if "*" not in pins and identity.digest not in pins:
        raise Refusal(412, "other_judge", f"asked for judge {', '.join(pins)}, but here judges {identity}")


async def _body(http: Request, max_bytes: int, cure: str) -> bytes:
    body = bytearray()
    async for chunk in http.stream():
        body += chunk
        if len(body) > max_bytes:
            raise Refusal(413, "too_large", f"the body exceeds {max_bytes} bytes; send {cure}")
    return bytes(body)


async def _read(http: Request, limits: LimitSettings) -> ScoreRequest:
    body = await _body(http, limits.max_body_bytes, "fewer candidates")
    try:
        request = ScoreRequest.model_validate_json(body)
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, fault['loc'])) or 'body'}: {fault['msg']}" for fault in error.errors()[:3]]
        raise Refusal(400, "bad_request", "; ".join(faults)) from error
    if len(request.candidates) > limits.max_candidates:
        message = f"{len(request.candidates)} candidates; one request takes {limits.max_candidates}"
        raise Refusal(413, "too_large", message)
    return request


async def _refuse(_: Request, refusal: Exception) -> Response:
    assert isinstance(refusal, Refusal)  # noqa: S101  what this handler is registered for
    headers = {"Retry-After": "1"} if refusal.status == 503 else {}
    return JSONResponse(refusal.body.model_dump(), refusal.status, headers)


def _border(key_sha256: Sequence[str]) -> Callable[[Request, Next], Awaitable[Response]]:
    """What every request passes: no answer without a key, and our own faults are logged, not told."""

    async def border(http: Request, call: Next) -> Response:
        if not is_allowed(http.scope["path"], http.headers.get("Authorization"), key_sha256):
            body = ErrorBody(code="no_key", message="this service wants a key: Authorization: Bearer KEY")
            return JSONResponse(body.model_dump(), 401, {"WWW-Authenticate": "Bearer"})
        try:
            return await call(http)
        except Exception:
            logger.exception("%s %s failed", http.method, http.url.path)
            body = ErrorBody(code="internal", message="the judge failed on this request; its log says why")
            return JSONResponse(body.model_dump(), 500)

    return border


_BINARY_BODY = {"requestBody": {"required": True, "content": {"application/octet-stream": {}}}}


def _json_body(kind: type[BaseModel]) -> dict[str, object]:
    """Documents a body that is read by hand, under a limit."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": kind.model_json_schema()}}}}
