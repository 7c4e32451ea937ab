"""POST /rerank, /v1/rerank and /v2/rerank: the clients of Cohere, Jina, OpenRouter, vLLM, Infinity and TEI.

A body with `texts` comes from a client of TEI, which reads a bare list. All other clients read `results`, and ignore
the fields that they do not know.

A document that cannot be judged has no result: none of these clients knows an error of a single document. `errors` and
`meta.warnings` give the reason. A client of TEI expects a score for each text, so such a request fails.

Sources:
    The published clients cohere 7.3, rerankers 0.10, infinity_client 0.0.78, litellm 1.110 and
    llama-index-postprocessor-tei-rerank 0.6, and the API documentation of Jina, OpenRouter and TEI.
"""

from typing import Annotated, Any

from pydantic import Field, model_validator

from judge_service.compatible.asking import Answers, Body, errors_of, usage_of
from judge_service.compatible.contents import content_of
from judge_service.front.errors import HttpError
from unijudge.content import Content
from unijudge.judging.verdicts import PairError, Verdict

WholeNumber = Annotated[int, Field(strict=True, ge=0)]


class RerankRequest(Body):
    """A query and documents."""

    query: Any
    documents: Annotated[list[Any], Field(min_length=1)] | None = None
    texts: Annotated[list[Any], Field(min_length=1)] | None = None
    """The documents in a body of TEI."""
    top_n: WholeNumber | None = None
    """The number of results. 0, as in vLLM, or null: all."""
    return_documents: bool | None = None
    return_text: bool | None = None
    """`return_documents` in a body of TEI."""
    rank_fields: list[str] | None = None
    raw_scores: bool | None = None
    use_activation: bool | None = None
    instruction: str | None = None

    @model_validator(mode="after")
    def _is_sound(self) -> "RerankRequest":
        if (self.documents is None) == (self.texts is None):
            raise ValueError("send either documents or texts")
        if self.instruction:
            raise ValueError(
                "instruction: this judge has its own instruction. Leave it out, or put it into the query"
            )
        return self

    @property
    def given(self) -> list[Any]:
        """The documents as they were sent."""
        return self.documents or self.texts or []

    @property
    def is_raw(self) -> bool:
        """Whether a score is the log-odds instead of the probability."""
        return bool(self.raw_scores) or self.use_activation is False

    def pairs(self) -> tuple[Content, list[Content]]:
        """Returns the query and the candidates.

        Raises:
            HttpError: A content has an unknown shape.
        """
        fields = self.rank_fields or ()
        name = "documents" if self.texts is None else "texts"
        candidates = [
            content_of(f"{name}.{place}", document, fields)
            for place, document in enumerate(self.given)
        ]
        return content_of("query", self.query), candidates


def rerank_response(request: RerankRequest, answers: Answers, model: str) -> dict[str, Any]:
    """Returns the answer for clients that read `results`."""
    usage = usage_of(answers)
    errors = errors_of(answers)
    results = []
    for index, score in ranked(request, answers):
        result: dict[str, Any] = {"index": index, "relevance_score": score}
        if request.return_documents is not False:
            result["document"] = _document(request, index)
        results.append(result)
    return {
        "model": model,
        "results": results,
        "errors": errors,
        "usage": {"prompt_tokens": usage.prompt_tokens, "total_tokens": usage.prompt_tokens},
        "meta": {
            "api_version": {"version": "2"},
            "billed_units": {"search_units": 1, "images": usage.images},
            "tokens": {"input_tokens": usage.prompt_tokens, "output_tokens": 0},
            "warnings": [f"document {error['index']}: {error['message']}" for error in errors],
        },
    }


def tei_response(request: RerankRequest, answers: Answers) -> list[dict[str, Any]]:
    """Returns the bare list for clients of TEI.

    Raises:
        HttpError: A text cannot be judged.
    """
    for index, answer in enumerate(answers):
        if isinstance(answer, PairError):
            raise HttpError(422, answer.code, f"texts.{index}: {answer.message}")
    results = []
    for index, score in ranked(request, answers):
        result = {"index": index, "score": score}
        if request.return_text:
            result["text"] = request.given[index]
        results.append(result)
    return results


def ranked(request: RerankRequest, answers: Answers) -> list[tuple[int, float]]:
    """Returns the index and the score of each judged document, the best first. Equal scores keep their order."""
    scores = [
        (index, score_of(answer, raw=request.is_raw))
        for index, answer in enumerate(answers)
        if isinstance(answer, Verdict)
    ]
    scores.sort(key=lambda scored: scored[1], reverse=True)
    return scores[: request.top_n] if request.top_n else scores


def score_of(verdict: Verdict, *, raw: bool) -> float:
    """Returns the probability of a match, or its log-odds."""
    return verdict.log_odds if raw else verdict.score


def _document(request: RerankRequest, index: int) -> dict[str, Any]:
    """Returns a document of the request. Its image is only sent back to a client that requests documents."""
    document = request.given[index]
    if isinstance(document, str):
        return {"text": document}
    if isinstance(document, dict) and request.return_documents:
        return document
    content = content_of(f"documents.{index}", document, request.rank_fields or ())
    return {"text": content.text}
