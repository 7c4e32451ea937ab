"""The HTTP application around any judge. The application does not use Ray, and also runs under uvicorn.

The application promises:

- A request above the limits is not read.
- No URL and no path from a client is opened.
- Each candidate gets one verdict or one error, in order.
- A client that pinned a different judge gets no scores.
- A request that cannot be answered in time is rejected immediately.

The images of a request are loaded into memory before its work begins, so an eviction cannot remove an image in between.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response

from judge_service.compatible.asking import Asker
from judge_service.compatible.routes import BODIES, SCHEMAS, add_compatible_routes, body_of
from judge_service.front.admission import Admission
from judge_service.front.blobs import BlobStore
from judge_service.front.errors import HttpError, answer_error
from judge_service.front.gate import Gate, rules_of
from judge_service.front.in_work import InWork
from judge_service.front.questions import Question, Questions
from judge_service.front.state import READ_EVERY_S, StateFile
from judge_service.replica.counting import PairCounter
from judge_service.replica.health import WatchedJudge
from judge_service.settings import FrontSettings, LimitSettings
from unijudge.errors import BadImage, DataError, JudgeUnavailable
from unijudge.judging.prompt import LONGEST_LIST
from unijudge.judging.protocol import (
    ChooseResponse,
    CountResponse,
    Limits,
    ScoreRequest,
    ScoreResponse,
    ServiceInfo,
)


def create_app(
    judge: WatchedJudge,
    limits: LimitSettings,
    key_sha256: Sequence[str] = (),
    blobs: BlobStore | None = None,
    replica: str = "0",
    *,
    counter: PairCounter | None = None,
    replicas: int = 1,
    front: FrontSettings | None = None,
    state: StateFile | None = None,
) -> FastAPI:
    """Returns the application. The application starts after its judge has scored known pairs, and repeats this check.

    Args:
        judge: The judge that answers.
        limits: The limits of a request.
        key_sha256: Digests of the accepted API keys. Empty: no key is required.
        blobs: The store of uploaded images. None: images cannot be uploaded.
        replica: The name of this replica in its answers.
        counter: The counter of tokens of this judge's prompts. None for a judge without tokens.
        replicas: The number of replicas behind the same address, including this replica.
        front: The limits of running and waiting requests.
        state: The state of the service. When the service stops, waiting requests are rejected.
    """
    front = front or FrontSettings()
    info = ServiceInfo(
        identity=judge.identity,
        digest=judge.identity.digest,
        limits=Limits(**limits.model_dump(), blobs=blobs is not None),
        shape=None if counter is None else counter.shape,
        replicas=replicas,
    )
    admission = Admission(
        slots=front.max_ongoing_requests,
        max_waiting=front.max_queued_requests,
        max_wait_s=front.max_wait_s,
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await judge.check_ready()
        background = [asyncio.create_task(judge.watch())]
        if state is not None:
            background.append(asyncio.create_task(_close_when_stopping(admission, state)))
        try:
            yield
        finally:
            for task in background:
                task.cancel()

    in_work = None if state is None else InWork(state.in_work)
    questions = Questions(info, limits, blobs, admission, front.request_timeout_s, replica, in_work)
    app = FastAPI(title="unijudge judge service", lifespan=lifespan)
    app.add_exception_handler(HttpError, answer_error)
    app.add_middleware(Gate, rules=rules_of(front, limits, key_sha256), check=questions.check)

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """The process is alive."""
        return {"status": "alive"}

    @app.get("/readyz")
    async def readyz() -> dict[str, str]:
        """The last check of the judge passed. This request does not start a new check."""
        try:
            judge.check_well()
        except JudgeUnavailable as error:
            raise HttpError(503, "not_ready", str(error), retry=1) from error
        return {"status": "ready"}

    @app.get("/v1/identity")
    async def identity(response: Response) -> ServiceInfo:
        """The identity of the judge, the cost of a token, and the limits of a request."""
        response.headers["ETag"] = f'"{info.digest}"'
        return info

    _add_pairs(app, questions, judge, counter)
    _add_blobs(app, blobs)
    add_compatible_routes(app, Asker(questions, judge, limits))
    _document_bodies(app)
    return app


def _add_pairs(
    app: FastAPI, questions: Questions, judge: WatchedJudge, counter: PairCounter | None
) -> None:
    identity = questions.info.identity

    @app.post("/v1/score", response_model=ScoreResponse, openapi_extra=_JSON_BODY)
    async def score(http: Request) -> Response:
        """One verdict or one error for each candidate, in order."""

        async def work(question: Question) -> ScoreResponse:
            results = await judge.judge(question.query, question.candidates)
            return ScoreResponse(identity=identity, results=results)

        return await questions.answer(http, work)

    @app.post("/v1/choose", response_model=ChooseResponse, openapi_extra=_JSON_BODY)
    async def choose(http: Request) -> Response:
        """The best of at most nine candidates, listed in order. No choice if the answer is not a number."""

        async def work(question: Question) -> ChooseResponse:
            number = len(question.candidates)
            if number > LONGEST_LIST:
                reason = f"a list has at most {LONGEST_LIST}, so that each number is one token. Send fewer candidates"
                raise HttpError(422, "too_many", f"{number} candidates: {reason}")
            result = await judge.choose(question.query, question.candidates)
            return ChooseResponse(identity=identity, result=result)

        return await questions.answer(http, work)

    @app.post("/v1/count", response_model=CountResponse, openapi_extra=_JSON_BODY)
    async def count(http: Request) -> Response:
        """The number of tokens of each candidate's prompt, or its error, in order. The model does not run."""

        async def work(question: Question) -> CountResponse:
            if counter is None:
                reason = "the judge has no tokens to count. Use a service that runs a model"
                raise HttpError(404, "no_tokens", f"{identity}: {reason}")
            counts = await asyncio.to_thread(counter.count, question.query, question.candidates)
            return CountResponse(identity=identity, results=counts)

        return await questions.answer(http, work)


async def _close_when_stopping(admission: Admission, state: StateFile) -> None:
    """Rejects all waiting requests when the service begins to stop."""
    while state.read().phase != "stopping":  # noqa: ASYNC110  another process writes the state
        await asyncio.sleep(READ_EVERY_S)
    admission.close()


def _add_blobs(app: FastAPI, blobs: BlobStore | None) -> None:
    @app.put("/v1/blobs/{name}", responses={200: {}, 201: {}}, openapi_extra=_BINARY_BODY)
    async def put_blob(name: str, http: Request) -> Response:
        """Stores an image under its SHA-256. Status 201, or 200 if the image was already stored."""
        if blobs is None:
            raise HttpError(
                404,
                "no_blobs",
                "this service does not store images: send images inside the requests",
            )
        try:
            new = await asyncio.to_thread(blobs.put, name, await http.body())
        except BadImage as error:
            raise HttpError(422, "bad_blob", str(error)) from error
        except DataError as error:
            raise HttpError(507, "no_room", str(error)) from error
        return Response(status_code=201 if new else 200)


_BINARY_BODY = {"requestBody": {"required": True, "content": {"application/octet-stream": {}}}}
_JSON_BODY = body_of(ScoreRequest)


def _document_bodies(app: FastAPI) -> None:
    """Adds the schemas of the bodies to FastAPI's documentation.

    FastAPI does not read these bodies, since they are read under a limit.
    """
    schemas = app.openapi()["components"]["schemas"]
    for kind in (ScoreRequest, *BODIES):
        schema = kind.model_json_schema(ref_template=SCHEMAS + "{model}")
        schemas |= schema.pop("$defs", {}) | {kind.__name__: schema}
