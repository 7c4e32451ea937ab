"""What a judge or an embedder sees of an item or a query, and the hash by which it is known."""

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True)
class Content:
    """What a judge or an embedder sees of an item or a query: text, an encoded image, or both."""

    text: str | None = None
    image: bytes | None = None


def content_key(text: str | None, image_sha256: str | None) -> bytes:
    """The 16-byte hash of exactly what a judge or an embedder is given: a line break more is another content.

    Example:
        >>> content_key("a cat", None) == content_key("a cat ", None)
        False
    """
    return hashlib.sha256(f"{text or ''}\0{image_sha256 or ''}".encode()).digest()[:16]
