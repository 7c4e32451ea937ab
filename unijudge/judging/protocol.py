"""The HTTP protocol of the judge service: the bodies that the client writes and the server checks.

GET  /v1/identity   ServiceInfo                      the judge's identity, what a token costs, the limits of a request
POST /v1/score      ScoreRequest → ScoreResponse     a verdict for each candidate of a query, in order
POST /v1/choose     ScoreRequest → ChooseResponse    the best candidate of the list, by one listwise question
POST /v1/count      ScoreRequest → CountResponse     the length of each prompt, without judging
GET  /v1/models     the judge's name                 the routes of other servers: judge_service/compatible/
PUT  /v1/blobs/SHA  the bytes of an image            later requests may name this image by its sha256
GET  /healthz       the process is alive             GET /readyz   a real pair was scored
any 4xx or 5xx      ErrorBody                        409: `missing` lists the images to send
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


def image_bytes(text: str) -> bytes:
    """Decodes base64 in its common forms: with line breaks, without padding, or as a `data:` URL.

    Raises:
        ValueError: The text is not base64.
    """
    letters = "".join(_after_header(text).split()).rstrip("=")
    try:
        return base64.b64decode(letters + "=" * (-len(letters) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(_no_base64(letters)) from error


def _decode(value: object) -> object:
    return image_bytes(value) if isinstance(value, str) else value


def _after_header(text: str) -> str:
    """Returns the content of a `data:` URL, and any other text unchanged."""
    if text[:5].lower() != "data:":
        return text
    header, _, letters = text.partition(",")
    if not header.lower().endswith(";base64"):
        raise ValueError(
            "a data: URL without ;base64, before its comma. Encode the image as base64"
        )
    return letters


def _no_base64(letters: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9_-]+", letters):
        cut_off = "is truncated: a single character is left at its end. Send it again"
        urlsafe = "uses the URL-safe characters - and _. Use + and / instead"
        return f"its base64 {urlsafe if '-' in letters or '_' in letters else cut_off}"
    return "not base64 of an image file; URLs and paths are never opened"


Base64 = Annotated[
    bytes,
    BeforeValidator(_decode, json_schema_input_type=str),
    PlainSerializer(lambda data: base64.b64encode(data).decode(), return_type=str),
]


class Wire(BaseModel):
    """The base class of the bodies. An unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class WireContent(Wire):
    """A query or a candidate: text, an image, or both. A candidate without content gets an error in its result."""

    text: str | None = None
    image: Base64 | None = None
    """A JPEG, PNG or WebP file in base64."""
    image_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    """The hash of a blob that was sent to the service before, instead of `image`."""

    @model_validator(mode="after")
    def _one_image(self) -> "WireContent":
        if self.image is not None and self.image_sha256:
            raise ValueError("both image and image_sha256 are set. Send only one of them")
        return self

    @classmethod
    def of(cls, content: Content, image_sha256: str | None = None) -> "WireContent":
        """Wraps a content without checks: the service checks it. With a hash, the image itself is not sent."""
        if image_sha256:
            return cls.model_construct(text=content.text, image_sha256=image_sha256)
        return cls.model_construct(text=content.text, image=content.image)

    def content(self, blobs: Mapping[str, bytes]) -> Content:
        """Unwraps the content; `blobs` maps a hash to its image."""
        return Content(
            text=self.text, image=blobs[self.image_sha256] if self.image_sha256 else self.image
        )


class ScoreRequest(Wire):
    """A query and its candidates."""

    query: WireContent
    candidates: Annotated[list[WireContent], Field(min_length=1)]
    explain: bool = False
    """Whether each answer has its cost, if the judge counts."""


class Answer(Wire):
    """The base class of a judge's answers."""

    identity: JudgeIdentity
    """The identity of the judge that answered."""


class ScoreResponse(Answer):
    """A verdict or an error for each candidate, in the order of the request."""

    results: list[Verdict | PairError]


class ChooseResponse(Answer):
    """The best candidate, or the reason why this list cannot be judged."""

    result: ListVerdict | PairError


class CountResponse(Answer):
    """A token count or an error for each candidate, in the order of the request."""

    results: list[TokenCount | PairError]


class Limits(Wire):
    """The limits of a request. A larger request is refused, never truncated."""

    max_candidates: int
    max_documents: int
    """The most documents of a request of a compatible route, such as /v1/rerank."""
    max_body_bytes: int
    """The most bytes of a request's body, and, separately, of the images that the request names by hash."""
    max_pixels: int
    """The largest width × height of an image, before any resizing."""
    max_request_pixels: int
    """The largest sum of width × height over all different images of a request."""
    blobs: bool
    """Whether images can be sent once and then named by their hash."""


class ServiceInfo(Wire):
    """The judge's identity, the cost of a token, and the limits of a request."""

    identity: JudgeIdentity
    digest: str
    """The value to send as `If-Match`, so that no other judge answers."""
    limits: Limits
    shape: ModelShape | None
    """The cost of a token; null for a judge without tokens, or if the model's shape is not known."""
    replicas: int
    """The number of copies of the judge that the service is configured to run. Each copy answers alone."""


class ErrorBody(Wire):
    """The reason why a whole request was not answered."""

    code: str
    """For programs: `bad_request`, `bad_query`, `bad_blob`, `unknown_blobs`, `no_blobs`, `no_room`, `too_large`,
    `too_many`, `other_judge`, `no_key`, `no_route`, `no_tokens`, `slow_body`, `busy`, `too_late`, `not_ready`,
    `judge_died`, `internal`."""
    message: str
    """A sentence for people."""
    missing: list[str] = []
    """The hashes of the images to send, for the code `unknown_blobs`."""
