"""POST /v1/decisions: OpenAI's Decisions API (beta, 2026-10), with images in the input and in the questions.

The input is the query. The instructions of a predicate are the candidate. A choice or a score asks the listwise
question: the instructions follow the input, and the options are the candidates. A question that cannot be answered is a
refusal. OpenAI's client ignores the field `reason` of a refusal.

Source:
    The types of openai 3.54, `resources/decisions.py` and `types/decision.py`.
"""

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictStr, model_validator

from judge_service.compatible.asking import Asker, Body, usage_of
from judge_service.compatible.contents import content_of, joined
from judge_service.front.bodies import work_of
from judge_service.front.errors import HttpError
from unijudge.content import Content
from unijudge.errors import JudgeRefused
from unijudge.judging.prompt import LONGEST_LIST
from unijudge.judging.verdicts import ListVerdict, PairError, Verdict

MOST_QUESTIONS = 400


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


async def decide(asker: Asker, http: Any, request: DecisionRequest) -> dict[str, Any]:
    """Answers the questions, in one turn of the queue.

    Raises:
        HttpError: The input cannot be judged, or a question has an unknown shape.
    """
    asker.check_number(len(request.questions))
    query = request.query()
    asked = [
        content_of(f"questions.{place}.instructions", question.instructions)
        for place, question in enumerate(request.questions)
    ]

    # Predicates share the input as their query, so they are judged together.
    predicates = {
        place: asked[place]
        for place, question in enumerate(request.questions)
        if isinstance(question, Predicate)
    }
    lists = {
        place: (joined(f"questions.{place}", [query, asked[place]]), _options(question))
        for place, question in enumerate(request.questions)
        if not isinstance(question, Predicate)
    }
    work = work_of(query, list(predicates.values()))
    work += sum(work_of(both, options) for both, options in lists.values())

    found: dict[int, Verdict | ListVerdict | PairError] = {}
    async with asker.questions.turn(http, work):
        if predicates:
            verdicts = await asker.in_groups(query, list(predicates.values()))
            found.update(zip(predicates, verdicts, strict=True))
        for place, (both, options) in lists.items():
            found[place] = await _chosen(asker, both, options)

    usage = usage_of(list(found.values()))
    cached = usage.prompt_tokens - usage.computed_tokens
    return {
        "model": asker.model,
        "answers": [
            _answer(question, found[place]) for place, question in enumerate(request.questions)
        ],
        "usage": {
            "input_tokens": usage.prompt_tokens,
            "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
            "output_tokens": 0,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage.prompt_tokens,
        },
    }


async def _chosen(asker: Asker, query: Content, options: list[Content]) -> ListVerdict | PairError:
    try:
        return await asker.choose(query, options)
    except JudgeRefused as error:
        return PairError(code="refused", message=str(error))


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


def _options(question: Choice | Scale) -> list[Content]:
    if isinstance(question, Choice):
        return [_option(str(choice.value), choice.description) for choice in question.choices]
    return [_option(level.label, level.description) for level in question.levels]


def _option(name: str, description: str | None) -> Content:
    return Content(text=f"{name}: {description}" if description else name)


def _answer(question: DecisionQuestion, found: Verdict | ListVerdict | PairError) -> dict[str, Any]:
    if isinstance(found, PairError):
        return {"type": "refusal", "name": question.name, "reason": found.message}
    answer: dict[str, Any] = {"type": question.type, "name": question.name}
    if isinstance(found, Verdict):
        return answer | {"probability": found.score}

    # The probabilities of the numbers, relative to each other.
    probabilities = [math.exp(logprob) / found.mass for logprob in found.logprobs]
    best = max(range(len(probabilities)), key=probabilities.__getitem__)
    answer["confidence"] = min(1.0, probabilities[best] * found.mass)
    if isinstance(question, Choice):
        values = [choice.value for choice in question.choices]
        answer["choice"] = values[best]
        answer["probabilities"] = [
            {"value": value, "probability": probability}
            for value, probability in zip(values, probabilities, strict=True)
        ]
    elif isinstance(question, Scale):
        answer["score"] = sum(level * share for level, share in enumerate(probabilities))
        answer["probabilities"] = [
            {"value": value, "label": level.label, "probability": probability}
            for value, (level, probability) in enumerate(
                zip(question.levels, probabilities, strict=True)
            )
        ]
    return answer
