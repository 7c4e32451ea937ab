"""The content of an item or a query for a judge or an embedder, and the hash of that content."""

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True)
class Content:
    """The content of an item or a query for a judge or an embedder: text, an encoded image, or both."""

    text: str | None = None
    image: bytes | None = None


def content_key(text: str | None, image_sha256: str | None) -> bytes:
    """Returns the 16-byte hash of the exact content: an additional line break changes the hash.

    Example:
        >>> content_key("a cat", None) == content_key("a cat ", None)
        False
    """
    return hashlib.sha256(f"{text or ''}\0{image_sha256 or ''}".encode()).digest()[:16]
