"""POST /v1/systemone: TypeSafe's System One API, with images in the state and in the questions.

The state is the input of a decision, so equal questions have equal scores on both routes. A `noul` is a statement; a
`choice` and a `score` are listwise. The API has no answer for a question that cannot be judged, so such a question
fails the request. A `box` is an unknown question, since a judge locates nothing.

The key of an asset stands in a text for its image. A text that is only the key is the image; in a longer text, the key
becomes the words "the image". A list of texts is read as its lines, and any other JSON as one text.

Source:
    The client typesafe-sdk 0.7.5: `_schemas/models.py`, `_core/endpoints.py` and `_core/response_types.py`.
"""

import asyncio
import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, model_validator

from judge_service.compatible.asking import Asker, Body, is_multipart, usage_of
from judge_service.compatible.contents import image_of, joined
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
from judge_service.compatible.multipart import parts_of
from judge_service.front.errors import HttpError
from unijudge.content import Content
from unijudge.judging.prompt import LONGEST_LIST
from unijudge.judging.verdicts import PairError, Verdict

Text = str | dict[str, Any] | list[Any]


class _Question(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    instructions: Text | None = None


class NoulCriteria(BaseModel):
    """What counts as yes and as no."""

    true: Text | None = None
    false: Text | None = None


class Noul(_Question):
    """A question or statement: yes or no."""

    type: Literal["noul"]
    criteria: NoulCriteria | None = None

    @model_validator(mode="after")
    def _is_sound(self) -> "Noul":
        if self.instructions is None and not self.outcomes():
            raise ValueError("send instructions or criteria")
        return self

    def outcomes(self) -> dict[str, Text]:
        """Returns the descriptions that the client gave."""
        criteria = self.criteria or NoulCriteria()
        named = {"yes": criteria.true, "no": criteria.false}
        return {name: text for name, text in named.items() if text is not None}


class NamedChoice(_Question):
    """A choice of the best name."""

    type: Literal["choice"]
    criteria: Annotated[dict[str, Text | None], Field(min_length=1, max_length=LONGEST_LIST)]


class Rubric(_Question):
    """A level on a scale. The first level is 0."""

    type: Literal["score"]
    criteria: Annotated[list[Text], Field(min_length=1, max_length=LONGEST_LIST)]


SystemOneQuestion = Annotated[Noul | NamedChoice | Rubric, Field(discriminator="type")]


class Asset(BaseModel):
    """An image: base64, or the name of a part of the body."""

    type: Literal["image"] | None = None
    data_base64: str | None = None
    part: str | None = None


class SystemOneRequest(Body):
    """A state, questions by name, and the images that their texts name."""

    state: Text
    questions: Annotated[
        dict[str, SystemOneQuestion], Field(min_length=1, max_length=MOST_QUESTIONS)
    ]
    assets: dict[Annotated[str, Field(min_length=1)], Asset] | None = None


async def read_system_one(
    asker: Asker, http: Request
) -> tuple[SystemOneRequest, Mapping[str, bytes]]:
    """Reads a request, and the parts of its body by name. A body that is only JSON has no parts.

    Raises:
        HttpError: The body is not a request.
    """
    if not is_multipart(http):
        return await asker.read(http, SystemOneRequest), {}
    parts = await asyncio.to_thread(parts_of, http.headers["Content-Type"], await http.body())
    body = parts.pop("request", None)
    if body is None:
        raise _bad("body", 'no part is named "request". Send the JSON of the request in this part')
    return await asker.read(http, SystemOneRequest, body), parts


async def answer_system_one(
    asker: Asker, http: Request, request: SystemOneRequest, parts: Mapping[str, bytes]
) -> dict[str, Any]:
    """Answers the questions, in one turn of the queue.

    Raises:
        HttpError: The state or a question cannot be judged.
    """
    query, asked = await asyncio.to_thread(_asked, request, parts)
    found = await answers_about(asker, http, query, asked)
    answers = {
        name: _answer(_place(name), question, answer)
        for (name, question), answer in zip(request.questions.items(), found, strict=True)
    }
    usage = {"input_tokens": usage_of(found).prompt_tokens, "output_tokens": 0}
    return {"model": asker.model, "answers": answers, "usage": usage}


def _asked(request: SystemOneRequest, parts: Mapping[str, bytes]) -> tuple[Content, list[Asked]]:
    assets = _Assets(request.assets or {}, parts)
    query = assets.content("state", request.state)
    asked = []
    for name, question in request.questions.items():
        where = _place(name)
        lines = []
        if question.instructions is not None:
            lines.append(assets.content(f"{where}.instructions", question.instructions))
        options = []
        match question:
            case Noul():
                lines += [
                    assets.option(where, outcome, text)
                    for outcome, text in question.outcomes().items()
                ]
            case NamedChoice():
                options = [
                    assets.option(where, choice, text) for choice, text in question.criteria.items()
                ]
            case Rubric():
                options = [assets.content(where, level) for level in question.criteria]
        asked.append(Asked(where, joined(where, lines), options))
    assets.check_all_named()
    return query, asked


class _Assets:
    """The images of a request, and the texts that name them."""

    def __init__(self, assets: Mapping[str, Asset], parts: Mapping[str, bytes]):
        self._images = {
            key: _image(f"assets.{key[:40]}", asset, parts) for key, asset in assets.items()
        }
        self._named: set[str] = set()

        # A key may be the beginning of another key, so longer keys are searched first.
        keys = sorted(map(re.escape, self._images), key=len, reverse=True)
        self._keys = re.compile("|".join(keys)) if keys else None

    def content(self, where: str, value: Text) -> Content:
        """Returns a text with the image that it names.

        Raises:
            HttpError: The text names more than one image.
        """
        if isinstance(value, list) and all(isinstance(line, str) for line in value):
            return joined(where, [self.content(where, line) for line in value])
        if isinstance(value, str) and value in self._images:
            self._named.add(value)
            return Content(image=self._images[value])
        names: set[str] = set()
        text = self._without_keys(value, names)
        self._named |= names
        if not isinstance(text, str):
            text = json.dumps(text, ensure_ascii=False)
        images = [Content(image=self._images[name]) for name in sorted(names)]
        return joined(where, [Content(text=text), *images])

    def option(self, where: str, name: str, description: Text | None) -> Content:
        """Returns an option: its name, and its description behind a colon."""
        if description is None:
            return self.content(where, name)
        described = self.content(where, description)
        return Content(option_of(name, described.text).text, described.image)

    def check_all_named(self) -> None:
        """Raises an error if no text names an image: its client expects that the judge sees this image.

        Raises:
            HttpError: An image is not used.
        """
        for key in self._images.keys() - self._named:
            raise _bad(f"assets.{key[:40]}", "no text names this image. Put its key into the state")

    def _without_keys(self, value: Any, names: set[str]) -> Any:
        match value:
            case str() if self._keys:
                names.update(self._keys.findall(value))
                return self._keys.sub("the image", value)
            case list():
                return [self._without_keys(inner, names) for inner in value]
            case dict():
                return {key: self._without_keys(inner, names) for key, inner in value.items()}
        return value


def _image(where: str, asset: Asset, parts: Mapping[str, bytes]) -> bytes:
    if asset.part is not None:
        if asset.part not in parts:
            raise _bad(where, f"the body has no part {asset.part[:40]!r}. Send the image as a part")
        return parts[asset.part]
    image = image_of(where, asset.data_base64)
    if image is None:
        raise _bad(where, "no image. Send data_base64, or the name of a part")
    return image


def _answer(where: str, question: SystemOneQuestion, found: Found) -> dict[str, Any]:
    if isinstance(found, PairError):
        raise HttpError(422, found.code, f"{where}: {found.message}")
    if isinstance(found, Verdict):
        return {"type": "noul", "noul": found.score}
    shares = shares_of(found)
    answer: dict[str, Any] = {"type": question.type, "confidence": confidence_of(found)}
    match question:
        case NamedChoice():
            answer["probabilities"] = dict(zip(question.criteria, shares, strict=True))
            answer["choice"] = max(answer["probabilities"], key=answer["probabilities"].get)
        case Rubric():
            answer["probabilities"] = {str(level): share for level, share in enumerate(shares)}
            answer["legend"] = {str(level): text for level, text in enumerate(question.criteria)}
            answer["score"] = expected_level(shares)
    return answer


def _place(name: str) -> str:
    return f"questions.{name[:40]}"


def _bad(where: str, reason: str) -> HttpError:
    return HttpError(422, "bad_request", f"{where}: {reason}")
