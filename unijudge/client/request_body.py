"""The content of a query or a candidate in a request: with its image, or with the image's hash if that is shorter."""

import hashlib
import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from unijudge.content import Content
from unijudge.judging.protocol import WireContent
from unijudge.judging.verdicts import PairError

UNSENDABLE = sys.maxsize
"""The length of a content that no request can hold."""
INLINE_BYTES = 4096
"""Smaller images are sent inside the request, because their hashes would not save much."""
EXPLAIN = b',"explain":true'
"""The part of a request that asks for the cost of each answer."""


@dataclass(frozen=True)
class RequestContent:
    """A query or a candidate, ready to be written into a request."""

    text: str | None
    image: bytes | None
    name: str | None
    """The image's hash, if the image is large enough to be named."""
    inline_bytes: int
    """The length with the image inside, in bytes."""

    @classmethod
    def of(cls, content: Content, *, by_name: bool) -> "RequestContent":
        """Wraps a content. A large image is named by its hash if `by_name` is set."""
        image = content.image
        if not _is_unicode(content.text):
            return cls(None, None, None, UNSENDABLE)
        if image is None or not by_name or len(image) < INLINE_BYTES:
            whole = cls(content.text, image, None, 0)
            return replace(whole, inline_bytes=len(whole.encoded()))
        bare = len(cls(content.text, None, None, 0).encoded())
        return cls(
            content.text, image, hashlib.sha256(image).hexdigest(), bare + len(image) * 4 // 3 + 20
        )

    def fault(self, room: int) -> PairError:
        """Returns the reason why a request with `room` bytes cannot hold this content."""
        if self.inline_bytes == UNSENDABLE:
            message = "its text holds half a character (a lone surrogate), which UTF-8 cannot encode. Fix the text"
            return PairError(code="bad_text", message=message)
        message = f"{self.inline_bytes} bytes with its query, but a request takes {room}"
        return PairError(code="too_large", message=message)

    def encoded(self, inside: Collection[str] = ()) -> bytes:
        """Encodes the content as JSON. The image is named by its hash, unless this hash is in `inside`."""
        named = self.name if self.name not in inside else None
        content = WireContent.of(Content(self.text, self.image), named)
        return content.model_dump_json(exclude_none=True).encode()


def _is_unicode(text: str | None) -> bool:
    try:
        (text or "").encode()
    except UnicodeEncodeError:
        return False
    return True


def body_of(
    query: RequestContent,
    candidates: Sequence[RequestContent],
    inside: Collection[str] = (),
    *,
    explain: bool = False,
) -> bytes:
    """Builds the body of a request. Images whose hashes are in `inside` are sent in the body."""
    return (
        b'{"query":' + query.encoded(inside) + b',"candidates":['
        + b",".join(candidate.encoded(inside) for candidate in candidates) + b"]"
        + (EXPLAIN if explain else b"") + b"}"
    )  # fmt: skip


def chunks(
    parts: Sequence[RequestContent], most: int, room: int
) -> Iterator[Sequence[RequestContent]]:
    """Splits candidates, in order, into requests. A candidate that is too large for any request is alone in a chunk."""
    start = used = 0
    for index, part in enumerate(parts):
        if index > start and (index - start == most or used + part.inline_bytes > room):
            yield parts[start:index]
            start, used = index, 0
        used += part.inline_bytes + len(b",")
    if start < len(parts):
        yield parts[start:]
