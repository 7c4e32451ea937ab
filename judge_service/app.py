"""The HTTP application around any judge. Knows nothing of Ray, and runs under uvicorn as well.

It promises to read no more than the limits allow, to open no URL and no path that a client names, to answer one verdict
or one error for each candidate in order, and to score nothing for a client that pinned another judge. The images of a
request are in memory before its work begins: no eviction can take them.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from pydantic import ValidationError

from judge_service.blobs import BlobStore
from judge_service.counting import PairCounter
from judge_service.health import WatchedJudge
from judge_service.refusals import Refusal, border, refusals, refuse
from judge_service.settings import LimitSettings
from unijudge.corpus import Content
from unijudge.errors import BadImage, DataError, JudgeBroken, JudgeUnavailable
from unijudge.prompt import LONGEST_LIST
from unijudge.verdicts import JudgeIdentity
from unijudge.wire import ChooseResponse, CountResponse, Limits, ScoreRequest, ScoreResponse, ServiceInfo


def create_app(
    judge: WatchedJudge,
    limits: LimitSettings,
    key_sha256: Sequence[str] = (),
    blobs: BlobStore | None = None,
    replica: str = "0",
    *,
    counter: PairCounter | None = None,
    replicas: int = 1,
) -> FastAPI:
    """The application; it does not start before its judge has scored known pairs, and tries them again by itself.

    Args:
        judge: Who answers.
        limits: Of a request.
        key_sha256: Digests of the keys that are accepted; empty: everybody may ask.
        blobs: Where images are kept, if they are.
        replica: Its name, in its answers.
        counter: What counts the tokens of this judge's prompts; None for a judge that has none.
        replicas: How many applications like this one stand behind the same address, itself included.
    """
    info = ServiceInfo(
        identity=judge.identity,
        digest=judge.identity.digest,
        limits=Limits(**limits.model_dump(), blobs=blobs is not None),
        replicas=replicas,
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await judge.check_ready()
        watching = asyncio.create_task(judge.watch())
        try:
            yield
        finally:
            watching.cancel()

    app = FastAPI(title="unijudge judge service", lifespan=lifespan)
    app.add_exception_handler(Refusal, refuse)
    app.middleware("http")(border(key_sha256))

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

    _add_pairs(app, info, judge, counter, limits, blobs, replica)
    _add_blobs(app, blobs, limits)
    _document_bodies(app)
    return app


def _add_pairs(
    app: FastAPI,
    info: ServiceInfo,
    judge: WatchedJudge,
    counter: PairCounter | None,
    limits: LimitSettings,
    blobs: BlobStore | None,
    replica: str,
) -> None:
    async def asked(http: Request) -> tuple[Content, list[Content]]:
        request = await _read(http, limits)
        images = await asyncio.to_thread(_load_images, request, blobs, limits.max_body_bytes)
        query, *candidates = (content.content(images) for content in (request.query, *request.candidates))
        return query, candidates

    def answered(answer: ScoreResponse | ChooseResponse | CountResponse) -> Response:
        headers = {"ETag": f'"{info.digest}"', "Judge-Replica": replica}
        return Response(answer.model_dump_json(), media_type="application/json", headers=headers)

    @app.post("/v1/score", response_model=ScoreResponse, openapi_extra=_JSON_BODY)
    async def score(http: Request) -> Response:
        """One verdict or one error for each candidate, in order."""
        _check_pin(http, info.identity)
        query, candidates = await asked(http)
        with refusals():
            results = await judge.judge(query, candidates)
        return answered(ScoreResponse(identity=info.identity, results=results))

    @app.post("/v1/choose", response_model=ChooseResponse, openapi_extra=_JSON_BODY)
    async def choose(http: Request) -> Response:
        """Which of at most nine candidates, listed in their order, is the best; no number, no choice."""
        _check_pin(http, info.identity)
        query, candidates = await asked(http)
        if len(candidates) > LONGEST_LIST:
            message = f"{len(candidates)} candidates; a list takes {LONGEST_LIST}, whose numbers are one token each"
            raise Refusal(422, "too_many", message)
        with refusals():
            result = await judge.choose(query, candidates)
        return answered(ChooseResponse(identity=info.identity, result=result))

    @app.post("/v1/count", response_model=CountResponse, openapi_extra=_JSON_BODY)
    async def count(http: Request) -> Response:
        """How long each candidate's prompt is, or the error that it would get, in order; no model runs."""
        _check_pin(http, info.identity)
        if counter is None:
            raise Refusal(404, "no_tokens", f"{info.identity} has no tokens to count; ask a service that runs a model")
        query, candidates = await asked(http)
        with refusals():
            counts = await asyncio.to_thread(counter.count, query, candidates)
        return answered(CountResponse(identity=info.identity, shape=counter.shape, results=counts))


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


_BINARY_BODY = {"requestBody": {"required": True, "content": {"application/octet-stream": {}}}}
_SCHEMAS = "#/components/schemas/"
_JSON_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": f"{_SCHEMAS}{ScoreRequest.__name__}"}}},
    }
}


def _document_bodies(app: FastAPI) -> None:
    """Adds the bodies that are read by hand, under a limit, to what FastAPI knows: `_JSON_BODY` names them."""
    schema = ScoreRequest.model_json_schema(ref_template=_SCHEMAS + "{model}")
    parts = schema.pop("$defs")
    app.openapi()["components"]["schemas"] |= {**parts, ScoreRequest.__name__: schema}
