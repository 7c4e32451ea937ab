"""Adds the compatible routes to the service's application."""

import asyncio
import json
import time
import uuid
from typing import Any

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel

from judge_service.compatible.asking import Asker
from judge_service.compatible.decisions import DecisionRequest, decide
from judge_service.compatible.rerank import RerankRequest, rerank_response, tei_response
from judge_service.compatible.scoring import (
    PairScoreRequest,
    RankingRequest,
    pair_scores,
    rankings,
)
from judge_service.compatible.system_one import (
    SystemOneRequest,
    answer_system_one,
    read_system_one,
)
from judge_service.front.errors import HttpError

BODIES = (RerankRequest, PairScoreRequest, RankingRequest, DecisionRequest, SystemOneRequest)
SCHEMAS = "#/components/schemas/"


def add_compatible_routes(app: FastAPI, asker: Asker) -> None:
    """Adds the routes of other servers."""
    started = int(time.time())

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        """The judge, as the only model of the service: `data` for clients of OpenAI, `models` for those of TypeSafe."""
        model = {"id": asker.model, "object": "model", "created": started, "owned_by": "unijudge"}
        named = {
            "name": asker.model,
            "description": "The judge of this service.",
            "release_date": time.strftime("%Y-%m-%d", time.gmtime(started)),
        }
        return {"object": "list", "data": [model], "models": [named]}

    @app.post("/v2/rerank", openapi_extra=body_of(RerankRequest))
    @app.post("/v1/rerank", openapi_extra=body_of(RerankRequest))
    @app.post("/rerank", openapi_extra=body_of(RerankRequest))
    async def rerank(http: Request) -> Response:
        """Documents in the order of their probabilities, for clients of Cohere, Jina, vLLM, Infinity and TEI."""
        request = await asker.read(http, RerankRequest)
        try:
            query, candidates = await asyncio.to_thread(request.pairs)
            answers = await asker.judge(http, query, candidates)
            if request.texts is None:
                return _response(asker, "rerank", rerank_response(request, answers, asker.model))
            return asker.questions.response(_json(tei_response(request, answers)))
        except HttpError as error:
            error.is_for_tei = request.texts is not None
            raise

    @app.post("/score", openapi_extra=body_of(PairScoreRequest))
    async def pair_score(http: Request) -> Response:
        """The probability of each pair, for clients of vLLM."""
        request = await asker.read(http, PairScoreRequest)
        answers = await asker.judge_pairs(http, await asyncio.to_thread(request.pairs))
        return _response(asker, "score", pair_scores(request, answers, asker.model))

    @app.post("/v1/ranking", openapi_extra=body_of(RankingRequest))
    async def ranking(http: Request) -> Response:
        """Passages in the order of their log-odds, for clients of NVIDIA NIM."""
        request = await asker.read(http, RankingRequest)
        query, candidates = await asyncio.to_thread(request.pairs)
        return _response(asker, "ranking", rankings(await asker.judge(http, query, candidates)))

    @app.post("/v1/decisions", openapi_extra=body_of(DecisionRequest))
    async def decisions(http: Request) -> Response:
        """Answers to questions about an input, for clients of OpenAI's Decisions API."""
        request = await asker.read(http, DecisionRequest)
        return _response(asker, "decision", await decide(asker, http, request))

    @app.post("/v1/systemone", openapi_extra=body_of(SystemOneRequest))
    async def system_one(http: Request) -> Response:
        """Answers to questions about a state, for clients of TypeSafe. Images may be parts of a multipart body."""
        request, parts = await read_system_one(asker, http)
        answer = await answer_system_one(asker, http, request, parts)
        return _response(asker, "systemone", answer)


def _response(asker: Asker, kind: str, body: dict[str, Any]) -> Response:
    head = {"id": f"{kind}-{uuid.uuid4().hex}", "created": int(time.time())}
    return asker.questions.response(_json(head | body))


def _json(body: Any) -> str:
    """Returns an answer as JSON.

    Raises:
        HttpError: The answer repeats a document with a number that JSON does not have. The judge's numbers are finite.
    """
    try:
        return json.dumps(body, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        message = "body: a number is NaN or infinite, and the answer cannot repeat it. Leave the number out"
        raise HttpError(422, "bad_request", message) from error


def body_of(kind: type[BaseModel]) -> dict[str, Any]:
    """Returns the description of a JSON body for OpenAPI. The schema of `kind` is added to the document separately."""
    schema = {"$ref": SCHEMAS + kind.__name__}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}
