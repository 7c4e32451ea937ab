"""A query or a candidate as a request holds it: its image inside, or named by its hash where that is shorter."""

import hashlib
import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from unijudge.content import Content
from unijudge.judging.protocol import WireContent
from unijudge.judging.verdicts import PairError

UNSENDABLE = sys.maxsize
"""The length of what no request can hold."""
INLINE_BYTES = 4096
"""Smaller images travel inside the request: naming them would not be shorter by much."""


@dataclass(frozen=True)
class RequestContent:
    """A query or a candidate, ready to be written into a request."""

    text: str | None
    image: bytes | None
    name: str | None
    """The image's hash, where it is worth naming."""
    inline_bytes: int
    """Length with the image inside."""

    @classmethod
    def of(cls, content: Content, *, by_name: bool) -> "RequestContent":
        """Wraps a content; its image is named by its hash if it is large and `by_name` allows it."""
        image = content.image
        if not _is_unicode(content.text):
            return cls(None, None, None, UNSENDABLE)
        if image is None or not by_name or len(image) < INLINE_BYTES:
            whole = cls(content.text, image, None, 0)
            return replace(whole, inline_bytes=len(whole.encoded()))
        bare = len(cls(content.text, None, None, 0).encoded())
        return cls(content.text, image, hashlib.sha256(image).hexdigest(), bare + len(image) * 4 // 3 + 20)

    def fault(self, room: int) -> PairError:
        """Why a request cannot hold it, which has so many bytes for it."""
        if self.inline_bytes == UNSENDABLE:
            message = "its text holds half a character (a lone surrogate), which no UTF-8 has; mend it where it was cut"
            return PairError(code="bad_text", message=message)
        message = f"{self.inline_bytes} bytes with its query; a request takes {room}"
        return PairError(code="too_large", message=message)

    def encoded(self, inside: Collection[str] = ()) -> bytes:
        """As JSON; the image is named unless its name is among those `inside`."""
        named = self.name if self.name not in inside else None
        content = WireContent.of(Content(self.text, self.image), named)
        return content.model_dump_json(exclude_none=True).encode()


def _is_unicode(text: str | None) -> bool:
    try:
        (text or "").encode()
    except UnicodeEncodeError:
        return False
    return True


def body_of(query: RequestContent, candidates: Sequence[RequestContent], inside: Collection[str] = ()) -> bytes:
    """A request of these; images whose names are `inside` travel in it."""
    return (
        b'{"query":' + query.encoded(inside) + b',"candidates":['
        + b",".join(candidate.encoded(inside) for candidate in candidates) + b"]}"
    )  # fmt: skip


def chunks(parts: Sequence[RequestContent], most: int, room: int) -> Iterator[Sequence[RequestContent]]:
    """Cuts candidates, in order, into requests; one that is too large for any request comes alone."""
    start = used = 0
    for place, part in enumerate(parts):
        if place > start and (place - start == most or used + part.inline_bytes > room):
            yield parts[start:place]
            start, used = place, 0
        used += part.inline_bytes + len(b",")
    if start < len(parts):
        yield parts[start:]
