"""The interface of a system that embeds contents. A system works in two steps, so that the first step can run ahead."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from unijudge.content import Content
from unijudge.formats.corpus import Corpus
from unijudge.formats.vectors import Vectors


@dataclass(frozen=True)
class Identity:
    """The system that made some vectors, as stored in vectors.json."""

    model: str
    weights: str
    """The hub revision, a digest of the folder, or `as served`."""
    encoding: str
    """The way in which contents become inputs."""
    adapter: str = "none"
    min_pixels: int = 0
    """The smallest number of pixels in an image. 0: the system itself chooses how to scale images."""
    max_pixels: int = 0
    resize: str = "keep"
    model_dtype: str = "unknown"
    inputs_version: str = "unknown"
    """The versions of the libraries that make tokens and pixels, if known."""


class System(Protocol):
    """A system that embeds contents."""

    @property
    def identity(self) -> Identity:
        """The identity of the system, as stored with its vectors."""
        ...

    def check_texts(self, corpus: Corpus) -> None:
        """Checks a corpus for texts that are too long, before the first content is embedded.

        Only models of this project check. Other systems cut long texts themselves.

        Raises:
            DataError: Some texts are too long.
        """
        ...

    def prepare(self, content: Content) -> Any:
        """Returns the argument of `embed` for a content, or None to skip the content. Threads call this ahead of time.

        Raises:
            DataError: The content is too long, or its image cannot be decoded.
        """
        ...

    def embed(self, prepared: Sequence[Any]) -> Vectors:
        """Returns the vectors of prepared contents, in the same order, (contents, width).

        The length of a vector is greater than 0. The vector of a skipped content is 0.

        Raises:
            DataError: The system does not accept a content.
            EndpointError: The endpoint cannot be reached, or rejects the request.
        """
        ...
