"""What crosses HTTP: the bodies of the judge service, which the server checks and the client writes.

GET  /v1/identity   ServiceInfo                      who judges, what a token costs, the limits of a request
POST /v1/score      ScoreRequest → ScoreResponse     one query, its candidates; one answer for each, in order
POST /v1/choose     ScoreRequest → ChooseResponse    the same, asked as one list: which candidate is the best
POST /v1/count      ScoreRequest → CountResponse     the same, counted and not judged: how long each prompt is
PUT  /v1/blobs/SHA  the bytes of an image            from then on requests may name it by its sha256
GET  /healthz       the process is alive             GET /readyz   a real pair was scored
any 4xx or 5xx      ErrorBody                        409: its `missing` lists the images to send
"""

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, model_validator

from unijudge.content import Content
from unijudge.judging.flops import ModelShape, TokenCount
from unijudge.judging.verdicts import JudgeIdentity, ListVerdict, PairError, Verdict


def _decode(value: object) -> object:
    """Base64 as people make it: with line breaks, without the padding, as a `data:` URL."""
    if not isinstance(value, str):
        return value
    letters = "".join(_after_header(value).split()).rstrip("=")
    try:
        return base64.b64decode(letters + "=" * (-len(letters) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(_no_base64(letters)) from error


def _after_header(text: str) -> str:
    """What stands in a `data:` URL; other text as it is."""
    if text[:5].lower() != "data:":
        return text
    header, _, letters = text.partition(",")
    if not header.lower().endswith(";base64"):
        raise ValueError("a data: URL without ;base64, before its comma")
    return letters


def _no_base64(letters: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9_-]+", letters):
        cut_off = "is cut off: one letter stands alone at its end"
        urlsafe = "has the letters of URLs, - and _; the usual ones are + and /"
        return f"its base64 {urlsafe if '-' in letters or '_' in letters else cut_off}"
    return "not base64 of an image file; URLs and paths are never opened"


Base64 = Annotated[
    bytes,
    BeforeValidator(_decode, json_schema_input_type=str),
    PlainSerializer(lambda data: base64.b64encode(data).decode(), return_type=str),
]


class Wire(BaseModel):
    """The base of the bodies: an unknown field is an error, never ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class WireContent(Wire):
    """A query or a candidate: text, an image, or both. One without either is answered as any other, with its error."""

    text: str | None = None
    image: Base64 | None = None
    """A JPEG, PNG or WebP file in base64."""
    image_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    """In the place of `image`: the hash of a blob that the service was sent before."""

    @model_validator(mode="after")
    def _one_image(self) -> "WireContent":
        if self.image is not None and self.image_sha256:
            raise ValueError("both an image and the hash of one: send either")
        return self

    @classmethod
    def of(cls, content: Content, image_sha256: str | None = None) -> "WireContent":
        """Wraps a content, unchecked: the service checks what arrives. With a hash, the image itself stays here."""
        if image_sha256:
            return cls.model_construct(text=content.text, image_sha256=image_sha256)
        return cls.model_construct(text=content.text, image=content.image)

    def content(self, blobs: Mapping[str, bytes]) -> Content:
        """Unwraps it; `blobs` holds the images that are named by a hash."""
        return Content(text=self.text, image=blobs[self.image_sha256] if self.image_sha256 else self.image)


class ScoreRequest(Wire):
    """One query and the candidates to judge against it."""

    query: WireContent
    candidates: Annotated[list[WireContent], Field(min_length=1)]


class Answer(Wire):
    """The base of what a judge answers."""

    identity: JudgeIdentity
    """Who answered."""


class ScoreResponse(Answer):
    """One verdict or one error for each candidate, in the order of the request."""

    results: list[Verdict | PairError]


class ChooseResponse(Answer):
    """The best of the candidates, or why this list cannot be asked about."""

    result: ListVerdict | PairError


class CountResponse(Answer):
    """One count or one error for each candidate, in the order of the request."""

    results: list[TokenCount | PairError]


class Limits(Wire):
    """What one request may hold. Beyond it the request is refused, never cut."""

    max_candidates: int
    max_body_bytes: int
    """Of a request's body and, apart, of the images that it names by their hashes."""
    max_pixels: int
    """Largest width × height of an image, before any resizing."""
    max_request_pixels: int
    """Largest width × height of all different images of a request together."""
    blobs: bool
    """Whether images can be sent once and named by their hash from then on."""


class ServiceInfo(Wire):
    """Who judges, what a token costs there, and what a request may hold."""

    identity: JudgeIdentity
    digest: str
    """What to send as `If-Match` to be scored by this judge or not at all."""
    limits: Limits
    shape: ModelShape | None
    """What a token costs; null for a judge without tokens, and for a model of which it is not known."""
    replicas: int
    """How many copies of the judge the service was told to run; each answers by itself."""


class ErrorBody(Wire):
    """Why a request as a whole was not answered."""

    code: str
    """For programs: `bad_request`, `bad_query`, `bad_blob`, `unknown_blobs`, `no_blobs`, `no_room`, `too_large`,
    `too_many`, `other_judge`, `no_key`, `no_route`, `no_tokens`, `slow_body`, `busy`, `too_late`, `not_ready`,
    `judge_died`, `internal`."""
    message: str
    """A sentence for people."""
    missing: list[str] = []
    """With `unknown_blobs`: the hashes of the images to send."""
