"""POST /v1/decisions: OpenAI's Decisions API (beta, 2026-10), with images in the input and in the questions.

A question that cannot be answered is a refusal. OpenAI's client ignores the field `reason` of a refusal.

Source:
    The types of openai 3.54, `resources/decisions.py` and `types/decision.py`.
"""

import asyncio
from typing import Annotated, Any, Literal

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictStr, model_validator

from judge_service.compatible.asking import Asker, Body, usage_of
from judge_service.compatible.contents import content_of, joined
from judge_service.compatible.deciding import (
    MOST_QUESTIONS,
    Asked,
    Found,
    answers_about,
    confidence_of,
    expected_level,
    option_of,
    shares_of,
)
from judge_service.front.errors import HttpError
from unijudge.content import Content
from unijudge.judging.prompt import LONGEST_LIST
from unijudge.judging.verdicts import PairError, Verdict


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str | None = None
    instructions: Any


class Predicate(_Part):
    """A statement about the input that is true or false."""

    type: Literal["predicate"]


class ChoiceOption(BaseModel):
    """An option of a choice."""

    value: StrictStr | StrictBool
    description: str | None = None


class Choice(_Part):
    """A choice of the best option."""

    type: Literal["choice"]
    choices: Annotated[list[ChoiceOption], Field(min_length=2, max_length=LONGEST_LIST)]

    @model_validator(mode="after")
    def _is_clear(self) -> "Choice":
        # The text "true" and the value true are different choices.
        seen = set()
        for choice in self.choices:
            value = (type(choice.value), choice.value)
            if value in seen:
                raise ValueError(
                    f"two choices have the value {choice.value!r}. Give each choice its own value"
                )
            seen.add(value)
        return self


class Level(BaseModel):
    """A level of a scale."""

    label: str
    description: str | None = None


class Scale(_Part):
    """A level of the input on a scale. The lowest level is 0."""

    type: Literal["score"]
    levels: Annotated[list[Level], Field(min_length=2, max_length=LONGEST_LIST)]


DecisionQuestion = Annotated[Predicate | Choice | Scale, Field(discriminator="type")]


class DecisionRequest(Body):
    """An input, and the questions about it."""

    input: Any
    questions: Annotated[list[DecisionQuestion], Field(min_length=1, max_length=MOST_QUESTIONS)]

    def query(self) -> Content:
        """Returns the input as one content: the texts of all messages in order, and the only image.

        Raises:
            HttpError: The input has an unknown shape.
        """
        if isinstance(self.input, list):
            return joined(
                "input", [_item(f"input.{place}", item) for place, item in enumerate(self.input)]
            )
        return content_of("input", self.input)

    def asked(self) -> tuple[Content, list[Asked]]:
        """Returns the input and the questions.

        Raises:
            HttpError: The input or a question has an unknown shape.
        """
        questions = []
        for place, question in enumerate(self.questions):
            where = f"questions.{place}"
            instructions = content_of(f"{where}.instructions", question.instructions)
            questions.append(Asked(where, instructions, _options(question)))
        return self.query(), questions


async def decide(asker: Asker, http: Request, request: DecisionRequest) -> dict[str, Any]:
    """Answers the questions, in one turn of the queue.

    Raises:
        HttpError: The input cannot be judged, or a question has an unknown shape.
    """
    query, asked = await asyncio.to_thread(request.asked)
    found = await answers_about(asker, http, query, asked)
    usage = usage_of(found)
    cached = usage.prompt_tokens - usage.computed_tokens
    return {
        "model": asker.model,
        "answers": [
            _answer(question, answer)
            for question, answer in zip(request.questions, found, strict=True)
        ],
        "usage": {
            "input_tokens": usage.prompt_tokens,
            "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
            "output_tokens": 0,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage.prompt_tokens,
        },
    }


def _item(where: str, item: Any) -> Content:
    """Reads a message, or the arguments or the output of a call."""
    match item:
        case {"content": content}:
            return content_of(f"{where}.content", content)
        case {"output": content} | {"arguments": content} | {"input": content}:
            return content_of(where, content)
    raise HttpError(
        422, "bad_request", f"{where}: is not a message. Send an object with role and content"
    )


def _options(question: DecisionQuestion) -> list[Content]:
    match question:
        case Choice():
            return [option_of(str(choice.value), choice.description) for choice in question.choices]
        case Scale():
            return [option_of(level.label, level.description) for level in question.levels]
    return []


def _answer(question: DecisionQuestion, found: Found) -> dict[str, Any]:
    if isinstance(found, PairError):
        return {"type": "refusal", "name": question.name, "reason": found.message}
    answer: dict[str, Any] = {"type": question.type, "name": question.name}
    if isinstance(found, Verdict):
        return answer | {"probability": found.score}

    probabilities = shares_of(found)
    answer["confidence"] = confidence_of(found)
    if isinstance(question, Choice):
        values = [choice.value for choice in question.choices]
        answer["choice"] = values[probabilities.index(max(probabilities))]
        answer["probabilities"] = [
            {"value": value, "probability": probability}
            for value, probability in zip(values, probabilities, strict=True)
        ]
    elif isinstance(question, Scale):
        answer["score"] = expected_level(probabilities)
        answer["probabilities"] = [
            {"value": value, "label": level.label, "probability": probability}
            for value, (level, probability) in enumerate(
                zip(question.levels, probabilities, strict=True)
            )
        ]
    return answer
