"""POST /score (vLLM) and POST /v1/ranking (NVIDIA NIM): scores of pairs of two sides.

Sources:
    The scoring API of vLLM 0.33, and NVIDIA's documentation of the reranking NIM 2.4.
"""

from typing import Annotated, Any

from pydantic import Field, model_validator

from judge_service.compatible.asking import Answers, Body, errors_of, usage_of
from judge_service.compatible.contents import content_of
from judge_service.compatible.rerank import score_of
from judge_service.front.errors import HttpError
from unijudge.content import Content
from unijudge.judging.verdicts import PairError, Verdict

SIDES = (
    ("queries", "documents"),
    ("queries", "items"),
    ("data_1", "data_2"),
    ("text_1", "text_2"),
)
"""The names of the two sides in the versions of vLLM, the newest first."""


class PairScoreRequest(Body):
    """Two sides. Each side is one content or a list of contents: 1 to 1, 1 to N, or N to N."""

    queries: Any = None
    documents: Any = None
    items: Any = None
    data_1: Any = None
    data_2: Any = None
    text_1: Any = None
    text_2: Any = None
    use_activation: bool | None = None
    instruction: str | None = None

    @model_validator(mode="after")
    def _is_sound(self) -> "PairScoreRequest":
        if len(self._named()) != 1:
            names = ", or ".join(f"{left} and {right}" for left, right in SIDES)
            raise ValueError(f"send exactly one pair of sides: {names}")
        if self.instruction:
            raise ValueError(
                "instruction: this judge has its own instruction. Leave it out, or put it into the query"
            )
        return self

    def _named(self) -> list[tuple[str, str]]:
        sent = self.model_fields_set
        return [(left, right) for left, right in SIDES if left in sent and right in sent]

    def pairs(self) -> list[tuple[Content, Content]]:
        """Returns the pairs in order.

        Raises:
            HttpError: A content has an unknown shape, or the lengths of the sides do not fit.
        """
        ((left, right),) = self._named()
        queries = _side(left, getattr(self, left))
        documents = _side(right, getattr(self, right))
        if len(queries) == 1:
            queries *= len(documents)
        if len(queries) != len(documents) or not documents:
            raise HttpError(
                422,
                "bad_request",
                f"{left} has {len(queries)} contents, and {right} has {len(documents)}. Send 1 to 1, 1 to N, or N to N",
            )
        return list(zip(queries, documents, strict=True))


class RankingRequest(Body):
    """A query and passages."""

    query: Any
    passages: Annotated[list[Any], Field(min_length=1)]

    def pairs(self) -> tuple[Content, list[Content]]:
        """Returns the query and the candidates.

        Raises:
            HttpError: A content has an unknown shape.
        """
        candidates = [
            content_of(f"passages.{place}", passage) for place, passage in enumerate(self.passages)
        ]
        return content_of("query", self.query), candidates


def pair_scores(request: PairScoreRequest, answers: Answers, model: str) -> dict[str, Any]:
    """Returns the scores in the order of the pairs.

    Raises:
        HttpError: A pair cannot be judged. Clients read the scores by position, so none can be left out.
    """
    data = []
    for index, answer in enumerate(answers):
        if isinstance(answer, PairError):
            raise HttpError(422, answer.code, f"pair {index}: {answer.message}")
        score = score_of(answer, raw=request.use_activation is False)
        data.append({"index": index, "object": "score", "score": score})
    tokens = usage_of(answers).prompt_tokens
    usage = {"prompt_tokens": tokens, "completion_tokens": 0, "total_tokens": tokens}
    return {"object": "list", "model": model, "data": data, "usage": usage}


def rankings(answers: Answers) -> dict[str, Any]:
    """Returns the index and the log-odds of each judged passage, the best first, and the other passages' errors."""
    logits = [
        {"index": index, "logit": answer.log_odds}
        for index, answer in enumerate(answers)
        if isinstance(answer, Verdict)
    ]
    logits.sort(key=lambda scored: scored["logit"], reverse=True)
    tokens = usage_of(answers).prompt_tokens
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"rankings": logits, "errors": errors_of(answers), "usage": usage}


def _side(name: str, value: Any) -> list[Content]:
    if isinstance(value, list):
        return [content_of(f"{name}.{place}", inner) for place, inner in enumerate(value)]
    return [content_of(name, value)]
