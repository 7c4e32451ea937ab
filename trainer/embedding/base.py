"""A system makes vectors of contents, in two steps so that the first can run ahead. No caller can tell which it has."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from unijudge.content import Content
from unijudge.formats.corpus import Corpus
from unijudge.formats.vectors import Vectors


@dataclass(frozen=True)
class Identity:
    """What made the vectors, as vectors.json holds it."""

    model: str
    weights: str
    """The hub revision, a digest of the folder, or `as served`."""
    encoding: str
    """How contents become inputs."""
    adapter: str = "none"
    min_pixels: int = 0
    """0 where the system scales images as it sees fit."""
    max_pixels: int = 0
    resize: str = "keep"
    model_dtype: str = "unknown"
    inputs_version: str = "unknown"
    """Of what makes tokens and pixels, where that is known."""


class System(Protocol):
    """Embeds contents."""

    @property
    def identity(self) -> Identity:
        """Who it is."""
        ...

    def check_texts(self, corpus: Corpus) -> None:
        """Refuses a corpus with texts that are too long, before anything is embedded; others than ours cut them.

        Raises:
            DataError: There are some.
        """
        ...

    def prepare(self, content: Content) -> Any:
        """What `embed` takes; None where the content is skipped. Called in threads, ahead of it.

        Raises:
            DataError: The content is too long, or its picture cannot be decoded.
        """
        ...

    def embed(self, prepared: Sequence[Any]) -> Vectors:
        """Vectors in the order of what was prepared, (contents, width).

        They are of any length above zero, and 0 for a content that was skipped.

        Raises:
            DataError: The system does not take such contents.
            EndpointError: It is away, or refuses.
        """
        ...
